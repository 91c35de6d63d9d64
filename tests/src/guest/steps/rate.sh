# Reads and writes the disk or the file that a step before has found, past the page cache: 1 MiB at a time, and
# 4 KiB at a time, one after the other.
for way in read write; do
    say $(nested rate ${way}_1m $way "$disk" 1048576)
    say $(nested rate ${way}_4k $way "$disk" 4096)
done
