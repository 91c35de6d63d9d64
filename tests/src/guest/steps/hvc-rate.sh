# How fast the virtio console speaks and listens. When its last user goes, it forgets that it is raw.
load console
await '[ -c /dev/hvc0 ]'
exec 4<>/dev/hvc0
stty -F /dev/hvc0 raw -echo
spoken=$(nested rate spoken write /dev/hvc0 4096)
say hvc_ready=1
say $spoken $(nested rate heard read /dev/hvc0 4096)
