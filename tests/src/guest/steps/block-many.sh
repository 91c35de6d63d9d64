# After the disks are found: a thousand small reads of the first, past the page cache.
dd if=/dev/vda of=/dev/null bs=4k count=1000 iflag=direct 2>/dev/null
say block_many=$?
