# Runs one container after the other for bench/placement, on a host or in a guest, with no more than a shell.
#
# usage: placed.sh up|down FOLDER LABEL RUNTIME
#        placed.sh run FOLDER LABEL RUNTIME NAME FUNCTION
#
# FOLDER has the program, and NAME.json, NAME.toml and perhaps NAME.profile of a run. All else is below /run, in memory.
verb=$1 folder=$2 work=/run/$3 runtime=$4 name=$5 function=$6
store=/var/lib/elastic-mem-bench

case $verb in
up)
    mkdir -p "$work/bundle/rootfs" "$work/state"
    for name in proc dev sys; do mkdir -p "$work/bundle/rootfs/$name"; done
    cp "$folder/touch" "$work/bundle/rootfs/touch"
    ;;
down)
    for name in $(ls "$work/state" 2>/dev/null); do
        "$runtime" --root "$work/state" delete --force "$name" 2>/dev/null
    done
    rm -rf "$work" "$store"
    rmdir "/sys/fs/cgroup/$3" 2>/dev/null
    ;;
run)
    cp "$folder/$name.json" "$work/bundle/config.json"
    cp "$folder/$name.toml" "$work/settings.toml"
    rm -rf "$store" "$work/bundle/rootfs/stop"
    if [ -e "$folder/$name.profile" ]; then
        mkdir -p -m 700 "$store" "$store/functions" "$store/functions/state%2F$function"
        (umask 077 && cp "$folder/$name.profile" "$store/functions/state%2F$function/profile.json")
    fi
    run() { "$runtime" --config "$work/settings.toml" --root "$work/state" "$@"; }
    run create --bundle "$work/bundle" --pid-file "$work/pid" "$name" >"$work/out" 2>"$work/err" </dev/null &&
        run start "$name" 2>>"$work/err" || { cat "$work/err"; run delete --force "$name"; exit 1; }
    read -r pid <"$work/pid"
    lives() { grep -q '^State:[[:space:]]*[^ZX]' "/proc/$pid/status" 2>/dev/null; }
    until grep -q '"stage":"end"' "$work/out"; do
        lives || break
        sleep 0.05
    done
    # What is given at creation is there; what is moved takes a while.
    tries=0
    while :; do
        found=$(run placement --json "$name")
        flat=$(echo "$found" | tr -d ' \n')
        case $flat in
        *'"means":"correction"'*)
            case $flat in *'"moved":0,'*) ;; *'"isHeld":true'*'"pending":0'*) break ;; esac
            ;;
        *) break ;;
        esac
        tries=$((tries + 1))
        [ $tries -lt 100 ] || break
        sleep 0.2
    done
    : >"$work/bundle/rootfs/stop"
    while lives; do sleep 0.05; done
    cat "$work/out" "$work/err"
    echo "PLACEMENT $(echo "$found" | tr -d '\n')"
    run delete --force "$name" 2>/dev/null
    ;;
esac
