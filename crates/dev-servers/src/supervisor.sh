# Ends a server when the process that started it ends.
#
# $1: the signal that ends the server; then the server's command line. Standard input is a pipe whose other end
# only the owner holds: it ends when the owner closes it, or dies, by kill -9 too. Standard output is the log.
exec 3<&0 </dev/null
signal=$1
shift

"$@" 3<&- &
server=$!
# Only the owner's end counts. The server was started before this, so that it ignores nothing.
trap '' HUP INT QUIT TERM

(
    read -r _ <&3
    kill -s "$signal" "$server"
    left=60
    while kill -0 "$server" && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
    kill -s KILL "$server"
) 2>/dev/null &
watch=$!
exec 3<&-

wait "$server"
status=$?
kill -s KILL "$watch" 2>/dev/null
exit "$status"
