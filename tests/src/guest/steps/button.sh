# Waits for the power button to be pressed: an event of type 1 (a key), with its code and value.
load button
event=
for name in /sys/class/input/event*/device/name; do
    case $(cat "$name") in gpio-keys | 'Power Button') event=$(echo "$name" | cut -d/ -f5) ;; esac
done
say button_device="$event"
set -- $(dd if="/dev/input/$event" bs=24 count=1 2>/dev/null | od -An -tu2 -j16)
say button_type="$1" button_code="$2" button_value="$3"
