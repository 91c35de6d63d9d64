# What kind of machine this is.
say kernel="$(uname -r)"
say cpus="$(nproc)"
say memory_kib="$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
say rsi="$(dmesg | sed -n 's/.*Using RSI version \([0-9.]*\).*/\1/p')"
say swiotlb_slots="$(cat /sys/kernel/debug/swiotlb/io_tlb_nslabs)"
say encryption="$(dmesg | sed -n 's/.*Memory Encryption Features active: *//p' | tr ' ' ,)"
