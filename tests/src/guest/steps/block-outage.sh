# After block: writes 1 MiB and has it made durable, sees the disk fail while the host says so, and uses it
# again afterwards.
yes 'durable' | head -c 1048576 >/tmp/durable
dd if=/tmp/durable of=/dev/vda bs=1M seek=1 conv=fsync 2>/dev/null
say outage_durable=$?
say outage_awaited=1
read -r _ </dev/console
dd if=/dev/vda of=/dev/null bs=4k skip=512 count=1 iflag=direct 2>/dev/null
say outage_read=$?
dd if=/tmp/durable of=/dev/vda bs=4k seek=2048 count=1 conv=fsync 2>/dev/null
say outage_write=$?
say outage_complaints="$(log_has 'I/O error, dev vda')"
say outage_seen=1
read -r _ </dev/console
dd if=/tmp/durable of=/dev/vda bs=1M seek=13 conv=fsync 2>/dev/null
say outage_after=$?
echo 3 >/proc/sys/vm/drop_caches
for mib in 1 13; do
    there="$(dd if=/dev/vda bs=1M skip=$mib count=1 iflag=direct 2>/dev/null | digest)"
    say outage_kept$mib="$([ "$there" = "$(digest /tmp/durable)" ] && echo 1 || echo 0)"
done
