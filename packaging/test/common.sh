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
        # What systemd, the kernel and the agent said meanwhile.
        journalctl --no-pager --output=short-monotonic --lines=12
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

# stop_unless_up: without the service nothing else can be tested; says why it is
# not there.
stop_unless_up() {
    if ! active egress-agent.service; then
        journalctl --boot --no-pager --output=short-monotonic --unit=egress-arm.service \
            --unit=egress-agent.service --unit=egress.slice | tail -n 60
        result
        exit 1
    fi
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
status_says() {
    egressctl status >/tmp/status
    grep -q "$1" /tmp/status || { cat /tmp/status; false; }
}
recorded() { egressctl audit query --limit 1000 -o jsonl | grep -q "$1"; }

# in_container: whether this is a container and not a machine.
in_container() { systemd-detect-virt --quiet --container; }

# place_the_root: a container has a part of the host's cgroups, and the slice is
# below that part.
place_the_root() {
    in_container || return 0
    below=$(sed -n 's,^0::/\(.*\)/init.scope$,\1,p' /proc/1/cgroup)
    echo force-confold >/etc/dpkg/dpkg.cfg.d/keep
    mkdir --parents /etc/egress
    printf 'root = "%s/egress.slice"\nwatch = true\n' "$below" >/etc/egress/agent.toml
}

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
