# Speaks by the virtio console, and hears a line there.
load console
await '[ -c /dev/hvc0 ]'
speak() { printf '@@ %s\n' "$*" >/dev/hvc0; }
stty -F /dev/hvc0 -echo
speak hvc=1
speak hvc_long="$(head -c 3000 /dev/zero | tr '\0' x)"
speak hvc_ready=1
read -r line </dev/hvc0
say hvc_heard="$line"
