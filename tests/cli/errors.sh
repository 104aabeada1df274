#!/bin/sh
# Wrong usage, and every setting of input/reference.cfg misspelt, of the wrong type and out of range: all problems at once,
# each with its line.
. "$srcdir/tests/cli/expect.sh"

# spoilt KIND: reference.cfg with every key spoilt goes to $work/KIND.cfg, the report expected of it to $work/KIND.expected
spoilt()
{
    awk -v kind="$1" -v cfg="$1.cfg" -v expected="$work/$1.expected" '
        /^[a-z_]+:$/ { group = substr($1, 1, length($1) - 1) "." }
        /^reward = \($/ { group = "reward.0." }
        /^}?;|^\);/ { group = "" }
        /^ *[a-z_0-9]+ = .*;$/ {
            key = $1
            path = group key
            if (kind == "misspelt") {
                sub(key, key "x")
                print cfg ":" NR ": " path "x: unknown setting; did you mean " path "?" > expected
            } else if (kind == "type") {
                sub(/= .*;/, "= ( 0.5 );")
                print cfg ":" NR ": " path ": " > expected
            } else if ($3 ~ /^[0-9.e-]+;$/ && key != "weight") { # any weight is one
                sub(/= .*;/, "= -1000000000;")
                print cfg ":" NR ": " path ": -1000000000 is out of range" > expected
            }
        }
        { print }' input/reference.cfg >"$work/$1.cfg"
    [ "$(wc -l <"$work/$1.expected")" -gt "$2" ] || { echo "$1: few settings were found in reference.cfg"; failed=1; }
}

# reported KIND COMMAND..: exit code 2, and the lines of the report begin as expected
reported()
{
    kind=$1
    shift
    (cd "$work" && exec "$@" "$kind.cfg" >stdout 2>stderr </dev/null)
    rc=$?
    sed -n "s/^rlhf-hpc: //; s/^rank 0: //; /^$kind.cfg:[0-9]/p" "$work/stderr" |
        awk -v expected="$work/$kind.expected" '{ if ((getline line <expected) != 1 || index($0, line) != 1) { print "got:  " $0; print "want: " line; exit } }
            END { if ((getline line <expected) == 1) print "missing: " line }' >"$work/difference"
    [ $rc -eq 2 ] && [ "$(grep -c '^rlhf-hpc: ' "$work/stderr")" -eq 1 ] && [ ! -s "$work/difference" ] && return
    echo "$kind: exit $rc (want 2): $*"
    cat "$work/difference"
    failed=1
}

spoilt misspelt 80
spoilt type 80
spoilt range 40
for kind in misspelt type range; do
    reported $kind "$program"
    [ "${MPIEXEC:-no}" = no ] || reported $kind "$MPIEXEC" -np 2 "$program"
done

echo 'task = "ppo"; ppo: { cliprage = 0.1; };' >"$work/misspelt.cfg"
echo 'task = "evaluate"; model: { path = "/nonexistent"; }; data: { path = "/nonexistent"; };' >"$work/missing.cfg"
echo 'task = "dpo"; model: { path = "x"; }; data: { path = "x"; };' >"$work/dpo.cfg"
sed -i "s|;\$|; run: { output_dir = \"$out\"; };|" "$work/missing.cfg" "$work/dpo.cfg"
refused 2 'unknown option' --plam x.cfg
refused 1 'nowhere.cfg' "$work/nowhere.cfg"
refused 2 'did you mean ppo.cliprange' "$work/misspelt.cfg"
refused_on_two 1 '/nonexistent' "$work/missing.cfg"
refused 2 'not built yet' "$work/dpo.cfg"
refused 2 'a string begins here and does not end' -s model.path='"x' "$work/dpo.cfg"
exit $failed
