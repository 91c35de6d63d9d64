#!/bin/busybox sh
# The guest's first process: runs the steps that the kernel's command line names and reports what
# it finds as `@@ key=value` lines. ccvm.steps=a,b names the steps, ccvm.end=... how to end.
# A report is a record of the kernel's log, which no other message of the kernel can divide.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t debugfs none /sys/kernel/debug
echo on >/proc/sys/kernel/printk_devkmsg

say() { printf '<0>@@ %s\n' "$*" >/dev/kmsg; }
digest() { sha256sum "$@" | cut -d' ' -f1; }
log_has() { dmesg | grep -c "$1"; }
# Loads a driver and what it depends on; some of it may be there already.
load() {
    while read -r module; do
        insmod "/modules/$module" 2>/dev/null
    done <"/modules/$1.order"
}
# Waits up to 30 s for a condition.
await() {
    for _ in $(seq 300); do
        eval "$1" && return 0
        sleep 0.1
    done
    return 1
}

say init=1 uptime="$(cut -d' ' -f1 /proc/uptime)"
steps=
end=poweroff
for word in $(cat /proc/cmdline); do
    case $word in
    ccvm.steps=*) steps=$(echo "${word#*=}" | tr , ' ') ;;
    ccvm.end=*) end=${word#*=} ;;
    esac
done
for step in $steps; do
    . "/steps/$step"
done
say end="$end"
case $end in
poweroff) poweroff -f ;;
reboot) reboot -f ;;
crash) echo c >/proc/sysrq-trigger ;;
esac
sleep 60
