# The second boot, after a bad push: what was installed in the first one.
. /share/common.sh
cat /var/lib/early
check "a unit in the slice ran before the agent was up" grep -q '/egress.slice/early.service' /var/lib/early
check "it was refused by enforcement and not for lack of a way" grep -q 'Operation not permitted' /var/lib/early
check "the arming came before the slice, and the slice before the unit" \
    sh -c 'systemctl show -p After early.service | grep -q egress.slice && systemctl show -p After egress.slice | grep -q egress-arm.service'
check "the agent is up after the boot" eventually active egress-agent.service
stop_unless_up
check "the last good policies are in force after a bad push and a reboot" eventually status_says "backup  enforce"
check "that is told loudly" status_says "WARNING.*refused"
check "and it is said where they come from" status_says "what was good the last time"
check "the refusal is in the journal under its id" \
    sh -c 'journalctl -b -o json MESSAGE_ID=5b7d0f0c6a0e4f7c9a3c1d0be2f10a04 | grep -q backup.yaml'
check "the agent took over what was armed at the boot" status_says "took over the programs and maps in force, unchanged"
world
check "a sandbox reaches what the last good policy names" \
    egressctl run --quiet --policy backup -- python3 /share/attempt.py 203.0.113.10 443
check "and nothing else" not egressctl run --quiet --policy backup -- python3 /share/attempt.py 203.0.113.10 444
check "nothing escaped" nothing_escaped
result
