# After the disks are found: writes 1 MiB and has it made durable, then writes what the host has no room
# for.
yes 'durable' | head -c 1048576 >/tmp/durable
dd if=/tmp/durable of=/dev/vda bs=1M conv=fsync 2>/dev/null
say fill_durable=$?
dd if=/dev/urandom of=/dev/vda bs=256k seek=8 count=48 oflag=direct 2>/dev/null
say fill_status=$?
say fill_complaints="$(log_has 'I/O error, dev vda')"
echo 3 >/proc/sys/vm/drop_caches
there="$(dd if=/dev/vda bs=1M count=1 2>/dev/null | digest)"
say fill_kept="$([ "$there" = "$(digest /tmp/durable)" ] && echo 1 || echo 0)"
