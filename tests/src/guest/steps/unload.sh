# Removes the device's driver, which gives its shared memory back.
rmmod e1000 2>/dev/null
rmmod e1000e 2>/dev/null
rmmod ahci 2>/dev/null
rmmod nvme 2>/dev/null
say unloaded=1
