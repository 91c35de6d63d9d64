# The kernel's own lines on what the demo shows.
dmesg | sed -n -e 's/^\[[^]]*\] //' -e '/^Linux version/s/ (.*//p' -e '/RSI version/p' -e '/Memory encryption is active/p' \
    -e '/software IO TLB: mapped/p' -e '/e1000.*Link is Up/p'
