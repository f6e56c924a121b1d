# Starts a server, and ends it when standard input ends or says so: when the test lets go of it, or is no more.
#
#   sh guard.sh DIRECTORY SIGNAL PROGRAM [ARGUMENTS...]
#
# Prints the server's process id. `keep` on standard input: the server ends and its directory stays; without that, the
# directory goes, too. The signal is what ends it, and after five seconds SIGKILL does.
directory=$1
signal=$2
shift 2

: >"$directory/log"
"$@" </dev/null >>"$directory/log" 2>&1 &
server=$!
# The kernel sends it to a group of processes without a parent, if some of them were stopped.
trap '' HUP
echo "$server"
exec >/dev/null 2>&1

order=
read -r order

# A server that was stopped hears nothing. PostgreSQL is a process with children.
kill -CONT "$server" $(cat "/proc/$server/task/$server/children")
kill -s "$signal" "$server"
waited=0
while kill -0 "$server" && [ "$waited" -lt 250 ]; do
    sleep 0.02
    waited=$((waited + 1))
done
kill -KILL "$server"
wait "$server"
# If it had one of its own.
umount "$directory/disk"
[ "$order" = keep ] || rm -rf -- "$directory"
