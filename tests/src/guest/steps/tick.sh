# Counts seconds until somebody ends the VM.
tick=0
while true; do
    say tick="$tick"
    tick=$((tick + 1))
    sleep 1
done
