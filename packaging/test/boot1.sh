# The first boot: install, use, upgrade, downgrade, remove. No network but the
# world's.
. /share/common.sh
old=/share/egress_0.1.0-1_amd64.deb
new=/share/egress_0.1.1-1_amd64.deb
echo 'nameserver 203.0.113.53' >/etc/resolv.conf
place_the_root
world
check "the far side can be reached from outside of every sandbox" outside 203.0.113.10 443

cd /share
. /share/operations.sh
stop_unless_up

check "the service is enabled" systemctl is-enabled egress-agent.service egress.slice
check "systemd knows when the agent is ready" \
    sh -c 'systemctl show -p StatusText egress-agent | grep -q "enforcing below"'
check "the agent runs in a cgroup of its own and not in the governed slice" \
    sh -c 'systemctl show -p ControlGroup egress-agent | grep -q /system.slice/'
in_container || check "the LSM programs are in force under the unit's restrictions" status_says "lsm  *in force"
check "the agent took over what was armed before it" status_says "took over the programs and maps in force, unchanged"
check "the journal has the start under its id, with fields" \
    sh -c 'journalctl -o json MESSAGE_ID=5b7d0f0c6a0e4f7c9a3c1d0be2f10a01 | grep -q EGRESS_ROOT'
check "the journal explains it" \
    sh -c 'journalctl -x MESSAGE_ID=5b7d0f0c6a0e4f7c9a3c1d0be2f10a01 | grep -q "The egress agent is up"'
check "a reload of the unit brings policies into force" systemctl reload egress-agent
echo nonsense >/etc/egress/policies.d/bad.yaml
check "a reload of the unit fails with a bad policy" not systemctl reload egress-agent
check "a bad push is told by status" eventually status_says "bad.yaml"
check "a bad push leaves the agent and its policies alone" status_says "backup  enforce"
rm /etc/egress/policies.d/bad.yaml
check "once it is mended nothing is warned about" eventually not status_says WARNING

check "a unit in the slice without a policy reaches nothing" not in_slice 203.0.113.10 443
check "the slice cannot be stopped by hand" not systemctl stop egress.slice
check "the slice stays when nothing is in it" active egress.slice

# A unit of somebody's own, with the hardening that the contract asks for.
cat >/etc/egress/policies.d/web.yaml <<'END'
apiVersion: egress/v1
name: web
applies_to:
  - unit: "web*.service"
allowlist:
  storage:
    - { cidr: "203.0.113.10", ports: [443], protocols: [tcp] }
END
check "a policy for units comes into force" egressctl reload --wait
in_web_unit() {
    systemd-run --quiet --wait --pipe --collect --slice=egress.slice --unit=web1 \
        --property=User=nobody --property=CapabilityBoundingSet= --property=NoNewPrivileges=yes \
        --property=SystemCallFilter=@system-service "$@" sh -c '
            for _ in $(seq 120); do
                python3 /share/attempt.py 203.0.113.10 443 && break
                sleep 0.5
            done
            python3 /share/attempt.py 203.0.113.10 443 && ! python3 /share/attempt.py 203.0.113.10 444'
}
check "a unit that a policy names reaches what it names and nothing else" in_web_unit
check "that it was adopted is recorded" recorded "adopted the cgroup web1.service under policy web"
check "a unit with capabilities stays denied" \
    not systemd-run --quiet --wait --pipe --collect --slice=egress.slice --unit=web2 \
    sh -c 'sleep 5; exec python3 /share/attempt.py 203.0.113.10 443'
check "why it stays denied is recorded" recorded "the cgroup .web2.service. stays denied"
rm /etc/egress/policies.d/web.yaml
check "without that policy everything is as before" egressctl reload --wait

# The slice is systemd's, and sandboxes in it are the agent's: whatever systemd
# does with its units, the limits stay.
limited() {
    cat /sys/fs/cgroup/egress.slice/limited/memory.max /sys/fs/cgroup/egress.slice/limited/pids.max \
        /sys/fs/cgroup/egress.slice/limited/cpu.max | tr '\n' ' '
}
still_limited() { [ "$(limited)" = "67108864 21 50000 100000 " ]; }
without_accounting() {
    systemd-run --quiet --wait --collect --slice=egress.slice --property=MemoryAccounting=no \
        --property=TasksAccounting=no --property=IOAccounting=no --property=CPUAccounting=no true
}
if ! in_container; then
    cat >/etc/egress/policies.d/limited.yaml <<'END'
apiVersion: egress/v1
name: limited
sandbox:
  memory_limit: 64Mi
  pids_limit: 20
  cpu_limit: 500m
END
    check "a policy with limits comes into force" egressctl reload --wait
    check "a sandbox with limits starts" egressctl run --quiet --detach --name limited --policy limited -- sleep 600
    check "its limits are the kernel's" still_limited
    check "a unit that asks for no controller runs in the slice" without_accounting
    check "the limits stay" still_limited
    check "systemd reads its units again" systemctl daemon-reload
    check "systemd starts itself again" systemctl daemon-reexec
    check "another unit comes and goes" without_accounting
    check "the limits still stay" still_limited
    check "the agent still knows the sandbox" eventually status_says "sandboxes  1"
    check "the sandbox can be stopped" egressctl sandbox stop limited --grace 1s
    rm /etc/egress/policies.d/limited.yaml
    check "without the policy everything is as before" egressctl reload --wait
fi

# A sandbox that lives through everything that follows.
rm -f /tmp/stop
mkdir -p /tmp/load
egressctl run --quiet --name load --policy backup -- \
    python3 /share/client.py /tmp/stop >/tmp/load/out 2>/tmp/load/err &
exchanges() { wc -l </tmp/load/out; }
goes_on() {
    before=$(exchanges)
    eventually sh -c "[ \$(wc -l </tmp/load/out) -gt $((before + 5)) ]" &&
        not grep -q 'BROKEN\|ESCAPED' /tmp/load/out
}
check "a sandbox has a connection" goes_on

pid=$(systemctl show -p MainPID --value egress-agent)
kill -KILL "$pid"
check "a connection goes on when the agent is killed" goes_on
check "systemd starts the agent again" eventually status_says "sandboxes  1"
systemctl kill --signal=STOP --kill-whom=main egress-agent
check "a connection goes on when the agent hangs" goes_on
stopped=$(systemctl show -p MainPID --value egress-agent)
another() { now=$(systemctl show -p MainPID --value egress-agent); [ "$now" != 0 ] && [ "$now" != "$stopped" ]; }
check "the watchdog replaces an agent that hangs" eventually another
check "the agent that follows knows the sandbox" eventually status_says "sandboxes  1"

systemctl stop egress-agent
check "a connection goes on when the service is stopped" goes_on
check "a unit in the slice reaches nothing while the service is stopped" not in_slice 203.0.113.10 443
check "the service starts again" systemctl start egress-agent

check "an upgrade succeeds under load" dpkg --install "$new"
check "the connection outlives the upgrade" goes_on
check "the new version runs" eventually active egress-agent.service
check "the new agent took over" eventually status_says "took over"
check "a downgrade is refused" not dpkg --install "$old"
check "a refused downgrade changes nothing" \
    sh -c 'dpkg-query -W -f "\${Status} \${Version}" egress | grep -q "installed 0.1.1-1"'
check "the agent runs on after a refused downgrade" eventually status_says "sandboxes  1"

check "the package is removed while a sandbox runs" dpkg --remove egress
check "a connection goes on when the package is removed" goes_on
check "a unit in the slice reaches nothing when the package is removed" not in_slice 203.0.113.10 443
check "a removed package comes back and takes over" dpkg --install "$new"
check "the sandbox is known again" eventually status_says "sandboxes  1"

check "disarming is refused while a sandbox runs" not egressctl disarm --yes
touch /tmp/stop
wait_for_load() { ! egressctl sandbox list | grep -q '^load'; }
check "the sandbox ends with its command" eventually wait_for_load
check "nothing that a sandbox was refused was ever reached" nothing_escaped
check "the connection never broke and nothing got out" not grep -q 'BROKEN\|ESCAPED' /tmp/load/out
check "disarming ends enforcement" egressctl disarm --yes
check "disarming is recorded" eventually recorded "disarmed by uid 0"
check "a disarmed agent is not started again by systemd" eventually sh -c '[ "$(systemctl is-active egress-agent)" = inactive ]'
check "a unit in the slice reaches everything after disarming" in_slice 203.0.113.10 443
check "starting the service enforces again" systemctl start egress-agent
check "a unit in the slice reaches nothing again" not in_slice 203.0.113.10 443

check "purging removes configuration and records" dpkg --purge egress
check "nothing is left of it" sh -c '! test -e /etc/egress && ! test -e /var/lib/egress'

# For the second boot: installed, one good policy, then a bad push, and a unit
# in the slice that is started before the agent.
place_the_root
check "the package is installed again" dpkg --install "$new"
cat >/etc/egress/policies.d/backup.yaml <<'END'
apiVersion: egress/v1
name: backup
allowlist:
  storage:
    - { cidr: "203.0.113.10", ports: [443], protocols: [tcp] }
END
check "a policy comes into force by itself" eventually status_says "backup  enforce"
sed -i 's/^watch = true$/watch = false/' /etc/egress/agent.toml
echo nonsense >/etc/egress/policies.d/backup.yaml
cp /share/attempt.py /usr/local/bin/attempt.py
cat >/etc/systemd/system/early.service <<'END'
[Unit]
Description=Tries to reach what it must not, before the agent is up
Before=egress-agent.service
[Service]
Type=oneshot
Slice=egress.slice
ExecStart=/bin/sh -c 'cat /proc/self/cgroup; python3 /usr/local/bin/attempt.py 203.0.113.10 9 || true'
StandardOutput=file:/var/lib/early
StandardError=inherit
[Install]
WantedBy=multi-user.target
END
systemctl enable early.service
result
