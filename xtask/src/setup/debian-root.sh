# Makes a root file system: PLACE SUITE MIRROR EXCUSE.
#
# Whoever else makes it at the same time is waited for. It has another name until
# all of it is there, because a half would be taken for the whole. What debootstrap
# mounts in it is in a mount namespace that ends with it, so that nothing is in the
# way of deleting what an interrupted one left.
set -e
place=$1 suite=$2 mirror=$3 excuse=$4
half=$place.new log=$place.log
mkdir -p "$(dirname "$place")"
exec 9>"$place.lock"
flock 9
[ ! -d "$place" ] || exit 0
rm -rf --one-file-system "$half"
rm -f "$excuse"
if unshare --mount -- debootstrap --variant=minbase "$suite" "$half" "$mirror" >"$log" 2>&1 </dev/null; then
    cd "$half"
    rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* dev/* \
        usr/share/doc usr/share/info usr/share/locale usr/share/man
    cd /
    mv --no-target-directory "$half" "$place"
    exit 0
fi
tail -n 5 "$log" >&2
rm -rf --one-file-system "$half"
# Only a registry that cannot be reached is an excuse for tests that are skipped.
if unreachable=$(grep -E -m 1 "^E: (Failed getting release file|Couldn't download)" "$log"); then
    echo "$unreachable" >"$excuse"
    exit 0
fi
exit 1
