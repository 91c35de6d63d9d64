# Writes 1 MiB at 8 MiB of the disk that the step before has found.
yes 'written by the guest' | head -c 1048576 >/tmp/written
dd if=/tmp/written of="$disk" bs=1M seek=8 conv=fsync 2>/dev/null
say written=$?
