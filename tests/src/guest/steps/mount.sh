# Mounts a file system that a daemon of the host serves, and finds a file in it.
load fs
mkdir -p /tmp/shared
await 'mount -t virtiofs shared /tmp/shared 2>/dev/null'
disk=/tmp/shared/file
