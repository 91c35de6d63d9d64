# After the disks are found: writes 1 MiB and has it made durable, uses the range from 8 to 12 MiB, where the
# host's storage fails, and then what is behind it.
yes 'durable' | head -c 1048576 >/tmp/durable
dd if=/tmp/durable of=/dev/vda bs=1M seek=1 conv=fsync 2>/dev/null
say error_durable=$?
dd if=/dev/vda of=/dev/null bs=4k skip=2560 count=1 iflag=direct 2>/dev/null
say error_read=$?
dd if=/tmp/durable of=/dev/vda bs=4k seek=2560 count=1 oflag=direct 2>/dev/null
say error_write=$?
say error_complaints="$(log_has 'I/O error, dev vda')"
dd if=/tmp/durable of=/dev/vda bs=1M seek=13 conv=fsync 2>/dev/null
say error_behind=$?
echo 3 >/proc/sys/vm/drop_caches
for mib in 1 13; do
    there="$(dd if=/dev/vda bs=1M skip=$mib count=1 2>/dev/null | digest)"
    say error_kept$mib="$([ "$there" = "$(digest /tmp/durable)" ] && echo 1 || echo 0)"
done
