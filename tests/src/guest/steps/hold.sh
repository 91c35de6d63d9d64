# Goes on when a line comes in on the console.
say holding=1
read -r _ </dev/console
