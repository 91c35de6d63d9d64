# Mounts a file system that a daemon of the host serves, reads a file in it and writes another.
load fs
mkdir -p /tmp/shared
await 'mount -t virtiofs shared /tmp/shared 2>/dev/null'
say fs_mounted=$?
say fs_offered_sha256="$(digest /tmp/shared/folder/offered)"
head -c 1048576 /dev/urandom >/tmp/sent
mkdir /tmp/shared/new
cp /tmp/sent /tmp/shared/new/partial
mv /tmp/shared/new/partial /tmp/shared/new/received
say fs_sent_sha256="$(digest /tmp/sent)"
umount /tmp/shared
say fs_unmounted=$?
