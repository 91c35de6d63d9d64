# An attestation token over a challenge of 64 bytes, which must be in it.
load token
mkdir -p /config
mount -t configfs none /config
report=/config/tsm/report/ccvm
mkdir "$report"
head -c 64 /dev/urandom >/tmp/challenge
cat /tmp/challenge >"$report/inblob"
cat "$report/outblob" >/tmp/token
bytes() { od -An -v -tx1 "$1" | tr -d ' \n'; }
say token_provider="$(cat "$report/provider")"
say token_size="$(stat -c %s /tmp/token)"
# CBOR: claim 44238, a byte string of 32.
say token_initial_measurement="$(bytes /tmp/token | sed -n 's/.*19acce5820\([0-9a-f]\{64\}\).*/\1/p')"
say token_has_challenge="$(bytes /tmp/token | grep -c "$(bytes /tmp/challenge)")"
