# What both boots of the package's test share. Each test is a sentence and a
# command; results are counted as Rust's test programs print them.

# Sandboxes have users of their own, and read what is in here.
chmod 755 /share
passed=0
failed=0

# check SENTENCE COMMAND…: the command has to succeed.
check() {
    sentence=$1
    shift
    if "$@" >/tmp/out 2>&1; then
        echo "test $sentence ... ok"
        passed=$((passed + 1))
    else
        echo "test $sentence ... FAILED (status $?)"
        echo "+ $*"
        cat /tmp/out
        failed=$((failed + 1))
    fi
}

# result: the last line, and the status.
result() {
    if [ "$failed" = 0 ]; then word=ok; else word=FAILED; fi
    echo "test result: $word. $passed passed; $failed failed; 0 ignored"
    sync
    [ "$failed" = 0 ]
}

not() { ! "$@"; }

# eventually COMMAND…: within two minutes; machines without KVM are slow.
eventually() {
    for _ in $(seq 240); do
        "$@" && return 0
        sleep 0.5
    done
    return 1
}

active() { [ "$(systemctl is-active "$1")" = active ]; }
status_says() { egressctl status | grep -q "$1"; }
recorded() { egressctl audit query --limit 1000 -o jsonl | grep -q "$1"; }

# A far side behind a veth pair.
world() {
    ip netns add far
    ip link add near type veth peer name far netns far
    ip address add 203.0.113.1/24 dev near
    ip link set near up
    ip -n far address add 203.0.113.10/24 dev far
    ip -n far link set far up
    ip -n far link set lo up
    rm -f /tmp/escaped /tmp/listening
    ip netns exec far python3 /share/server.py >/tmp/server.log 2>&1 &
    eventually test -e /tmp/listening
}

nothing_escaped() { not test -e /tmp/escaped; }

# outside ADDRESS PORT: as somebody who is in no sandbox.
outside() { python3 /share/attempt.py "$@"; }
# in_slice ADDRESS PORT: as a unit in the slice that nobody gave a policy.
in_slice() {
    systemd-run --quiet --wait --pipe --collect --slice=egress.slice \
        python3 /share/attempt.py "$@"
}
