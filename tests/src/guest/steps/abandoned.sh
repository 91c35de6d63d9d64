# After block: waits until the first disk says that only a reset helps, and sees what becomes of a read.
await '[ $(($(cat /sys/block/vda/device/status) & 64)) != 0 ]'
say abandoned=$?
dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null &
reader=$!
sleep 2
say abandoned_reader_waits="$([ -d /proc/$reader ] && echo 1 || echo 0)"
