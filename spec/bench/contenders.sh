# The gateways that are compared: what they need, how they start. Sourced by spec/bench/run.
# shellcheck shell=bash
# shellcheck disable=SC2154 # variables of run and processes.sh

declare -A upstream_port contender_port contender_pid
NGINX_LUA=$OUT/nginx-lua
PORTKEY=$OUT/portkey
NGINX_LUA_PACKAGES="libnginx-mod-http-lua libnginx-mod-http-ndk libluajit2-5.1-2 lua-resty-core
    lua-resty-lrucache lua-cjson"

# nginx is not in the PATH of ordinary users.
PATH=$PATH:/usr/sbin:/sbin

# missing_for CONTENDER: true, with the reason on stdout, when it cannot run here.
missing_for() {
    case $1 in
        nginx | haproxy)
            command -v "$1" > /dev/null && return 1
            echo "it is not installed (apt-get install $1)"
            ;;
        nginx-lua) nginx_lua_missing ;;
        perilune)
            [ -x "$PERILUNE_BIN" ] && [ -e policies/fallback.lua ] && return 1
            echo "$PERILUNE_BIN or policies/fallback.lua is not there (make)"
            ;;
        portkey) portkey_missing ;;
        *) return 1 ;;
    esac
}

# Debian's Lua module wants a LuaJIT package that replaces the one Perilune is built with. So its
# packages are only unpacked, never installed, and nginx is shown the way to them.
nginx_lua_missing() {
    local version
    command -v nginx > /dev/null || {
        echo "nginx is not installed (apt-get install nginx)"
        return 0
    }
    version=$(nginx -v 2>&1)
    [ "$(cat "$NGINX_LUA/complete" 2> /dev/null)" = "$version" ] && return 1
    say "fetching the Lua module of nginx into $NGINX_LUA"
    rm -rf "$NGINX_LUA"
    mkdir -p "$NGINX_LUA/debs" "$NGINX_LUA/root"
    # shellcheck disable=SC2086 # a list of words
    (cd "$NGINX_LUA/debs" && apt-get -q download $NGINX_LUA_PACKAGES) > "$NGINX_LUA/log" 2>&1 || {
        echo "apt-get download failed; see $NGINX_LUA/log (apt-get update may help)"
        return 0
    }
    local package
    for package in "$NGINX_LUA"/debs/*.deb; do
        dpkg-deb -x "$package" "$NGINX_LUA/root" || {
            echo "$package cannot be unpacked"
            return 0
        }
    done
    echo "$version" > "$NGINX_LUA/complete"
    return 1
}

portkey_missing() {
    command -v node > /dev/null && command -v npm > /dev/null || {
        echo "node and npm are not installed"
        return 0
    }
    [ -e "$PORTKEY/node_modules/@portkey-ai/gateway/build/start-server.js" ] && return 1
    say "npm installs the Portkey gateway into $PORTKEY"
    mkdir -p "$PORTKEY"
    npm install --prefix "$PORTKEY" --no-audit --no-fund --ignore-scripts @portkey-ai/gateway \
        > "$PORTKEY/log" 2>&1 && return 1
    echo "npm install failed; see $PORTKEY/log"
}

PLAIN="access_log = false," # as the others

# fill FILE PORT DIR: a configuration with its words between at signs filled in, on stdout.
fill() {
    local cjson=("$NGINX_LUA"/root/usr/lib/*/lua/5.1/cjson.so)
    sed -e "s|@LISTEN@|$2|g" -e "s|@DIR@|$3|g" -e "s|@CONNECTIONS@|$CONNECTIONS|g" \
        -e "s|@ROOT@|$NGINX_LUA/root|g" -e "s|@CJSON_DIR@|$(dirname "${cjson[0]}")|g" \
        -e "s|@OK_A@|${upstream_port[ok_a]}|g" -e "s|@OK_B@|${upstream_port[ok_b]}|g" \
        -e "s|@FAIL_503_A@|${upstream_port[fail_503_a]}|g" \
        -e "s|@FAIL_503_B@|${upstream_port[fail_503_b]}|g" "$1"
}

# start_* PORT DIR: launch it.

start_nginx() {
    fill "$BENCH/config/nginx.conf" "$1" "$2" > "$2/nginx.conf"
    launch "$GATEWAY_CORE" "$2/log" nginx -p "$2" -c "$2/nginx.conf"
}

start_nginx_lua() {
    local library=("$NGINX_LUA"/root/usr/lib/*/libluajit-5.1.so.2)
    fill "$BENCH/config/nginx-lua.conf" "$1" "$2" > "$2/nginx.conf"
    launch "$GATEWAY_CORE" "$2/log" env "LD_LIBRARY_PATH=$(dirname "${library[0]}")" \
        nginx -p "$2" -c "$2/nginx.conf"
}

start_haproxy() {
    fill "$BENCH/config/haproxy.cfg" "$1" "$2" > "$2/haproxy.cfg"
    launch "$GATEWAY_CORE" "$2/log" haproxy -db -f "$2/haproxy.cfg"
}

start_perilune() {
    perilune_with "$1" "$2" "$PLAIN"
}

# Perilune, by what it tells of its requests: nothing; everything, with traces of so many per cent.
start_unseen() {
    perilune_with "$1" "$2" "access_log = false, admin = { metrics = false, recent = 0 },"
}

start_seen_1() {
    start_seen "$1" "$2" 0.01
}

start_seen_10() {
    start_seen "$1" "$2" 0.1
}

start_seen_100() {
    start_seen "$1" "$2" 1
}

start_seen() {
    local endpoint="http://127.0.0.1:${upstream_port[collector]}" settings
    settings="access_log = { path = \"$2/requests.log\" },"
    settings="$settings tracing = { endpoint = \"$endpoint\", sample = $3 },"
    rm -f "$2/requests.log"
    perilune_with "$1" "$2" "$settings" true
}

# configuration SETTINGS STREAM_USAGE: gateway.lua, on stdout.
configuration() {
    fill "$BENCH/policies/gateway.lua" "" "" |
        sed -e "s|-- @SETTINGS@|$1|" -e "s|@STREAM_USAGE@|$2|"
}

# perilune_with PORT DIR SETTINGS [STREAM_USAGE]
perilune_with() {
    mkdir -p "$2/policies"
    cp policies/fallback.lua "$2/policies/"
    configuration "$3" "${4:-false}" > "$2/policies/gateway.lua"
    launch "$GATEWAY_CORE" "$2/log" "$PERILUNE_BIN" run "$2/policies" \
        --listen "127.0.0.1:$1" --admin 127.0.0.1:0 --workers 1
}

start_portkey() {
    launch "$GATEWAY_CORE" "$2/log" env NODE_ENV=production \
        node "$PORTKEY/node_modules/@portkey-ai/gateway/build/start-server.js" \
        "--port=$1" --headless
}

start_direct() {
    launched_pid=0
}

portkey_header() {
    local port targets=""
    for port in "${upstream_port[ok_a]}" "${upstream_port[ok_b]}"; do
        targets="$targets${targets:+,}{\"provider\":\"openai\",\"api_key\":\"sk-bench\","
        targets="$targets\"custom_host\":\"http://127.0.0.1:$port/v1\","
        targets="$targets\"override_params\":{\"model\":\"upstream-model\"}}"
    done
    echo "x-portkey-config: {\"strategy\":{\"mode\":\"fallback\"},\"targets\":[$targets]}"
}

# start_contender NAME: until it listens and a stream passes through it. False when it does not.
start_contender() {
    local name=$1 try port
    if [ "$name" = direct ]; then
        contender_port[direct]=${upstream_port[ok_a]}
        contender_pid[direct]=0
        return 0
    fi
    mkdir -p "$OUT/$name"
    for try in 1 2 3; do # another program may take the port first
        port=$(free_port)
        "start_${name//-/_}" "$port" "$OUT/$name"
        contender_port[$name]=$port
        contender_pid[$name]=$launched_pid
        if await_port "$port" "$launched_pid" && passes_a_stream "$name"; then
            return 0
        fi
        stop "$launched_pid"
        unset "contender_pid[$name]"
    done
    return 1
}

passes_a_stream() {
    [ "$1" = portkey ] && return 0 # it wants a header; wrk counts what it refuses
    "$OUT/sse_load" -m once -n 1 -t 5 -e 3 "${contender_port[$1]}" > "$OUT/$1/probe" 2>&1
}

stop_contender() {
    [ "$1" != direct ] && [ -n "${contender_pid[$1]:-}" ] && stop "${contender_pid[$1]}"
    unset "contender_pid[$1]"
}

stop_contenders() {
    local name
    for name in $1; do
        stop_contender "$name"
    done
}
