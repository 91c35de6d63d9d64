# Writes the disk that the step before has found and reads it back, over and over, until a line comes
# in on the console. Every round has a content of its own.
(read -r _ </dev/console && : >/tmp/enough) &
complaints() { dmesg | grep -c 'I/O error\|timeout'; }
round=0
wrong=0
before=$(complaints)
say churning=1
while [ ! -e /tmp/enough ]; do
    round=$((round + 1))
    yes "round $round" | head -c 262144 >/tmp/written
    dd if=/tmp/written of="$disk" bs=256k seek=32 conv=fsync 2>/dev/null || wrong=$((wrong + 1))
    echo 3 >/proc/sys/vm/drop_caches
    there="$(dd if="$disk" bs=256k skip=32 count=1 2>/dev/null | digest)"
    [ "$there" = "$(digest /tmp/written)" ] || wrong=$((wrong + 1))
    say round="$round" wrong="$wrong"
done
say io_complaints=$(($(complaints) - before))
