# After the disks are found: every processor writes 1 MiB to the first, at 2 MiB for each, at the same
# time; then one of the ranges is discarded.
yes 'written by the guest' | head -c 1048576 >/tmp/written
writers=
for cpu in $(seq 0 $(($(nproc) - 1))); do
    taskset $((1 << cpu)) dd if=/tmp/written of=/dev/vda bs=64k seek=$((32 * (cpu + 1))) \
        conv=fsync oflag=direct 2>/dev/null &
    writers="$writers $!"
done
failed=0
for writer in $writers; do wait "$writer" || failed=$((failed + 1)); done
say block_failed="$failed"
echo 3 >/proc/sys/vm/drop_caches
there="$(dd if=/dev/vda bs=1M skip=2 count=1 2>/dev/null | digest)"
say block_same="$([ "$there" = "$(digest /tmp/written)" ] && echo 1 || echo 0)"
say block_busy_queues="$(awk '/virtio.*-req/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum[$NF] += $i } END { for (q in sum) if (sum[q] > 4) busy++; print busy + 0 }' /proc/interrupts)"
blkdiscard -o 8388608 -l 4194304 /dev/vda
say block_discarded=$?
dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null
say block_readonly_write=$?
