#!/bin/sh
# Renews what the Anteroom cluster has given this machine: the keys of the node CA, the revocation list, and the host
# certificates that its sshd shows. The proxy is asked over ssh, with this machine's own host keys.
#
# What comes is looked at before it takes the place of what is there, in one step. What can't be had, or is not
# right, is said; the old file stays, and the exit status is 1. sshd is told only where a host certificate is another
# one: it reads the others at each login. Run it as root, from a timer, or by hand at any time.

values() {
    node_id=@NODE_ID@
    # For `sshd -T -C`.
    proxy_addr=127.0.0.1
    node_addr=127.0.0.1
    node_port=22
}

# Gives the proxy the command $1 with the options for ssh that follow it. The proxy is known by the key that stands
# here, and by no other.
ask_proxy() {
    command=$1
    shift
    @SSH@ \
        "$@" -- @HOST@ "$command" </dev/null
}

places() {
    PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
    export PATH
    LC_ALL=C
    export LC_ALL
    umask 022
    ssh_dir=/etc/ssh
    ca_file=$ssh_dir/anteroom_node_ca.pub
    krl_file=$ssh_dir/anteroom_krl
    # SIGHUP needs the full path of what is running.
    sshd=$(command -v sshd) || sshd=
    work=
    status=0
    certificate_changed=no
}

say() { printf 'anteroom-renew: %s\n' "$*"; }

# Something is not renewed, and the rest goes on.
miss() {
    printf 'anteroom-renew: %s\n' "$*" >&2
    status=1
}

# Ends it. What was replaced by then is put back.
fail() {
    miss "$*"
    put_back
    clean_up
    exit 1
}

clean_up() {
    [ -z "$work" ] || rm -rf "$work"
    work=
}

# ---- files

# Puts the file $1 in the place of $2, and keeps what was there.
replace() {
    cp -p "$2" "$work/old.${2##*/}" 2>/dev/null || : >"$work/none.${2##*/}"
    if ! put_file "$1" "$2"; then
        miss "$2 can't be written, and stays as it was"
        return 1
    fi
    printf '%s\n' "$2" >>"$work/replaced"
}

put_back() {
    [ -n "$work" ] && [ -s "$work/replaced" ] || return 0
    while read -r file; do
        if [ -e "$work/old.${file##*/}" ]; then
            put_file "$work/old.${file##*/}" "$file" || miss "$file could not be put back"
        else
            rm -f "$file"
        fi
    done <"$work/replaced"
    rm -f "$work/replaced"
    miss "everything was put back"
}

# ---- sshd

@SSHD@

# ---- the parts

# Command $1 of the proxy into file $2, by any host key that it knows this machine by.
fetch() {
    command=$1
    into=$2
    set --
    for key in "$ssh_dir"/ssh_host_*_key; do
        [ -f "$key" ] && set -- "$@" -i "$key"
    done
    if [ $# = 0 ]; then
        miss "there is no host key in $ssh_dir to ask the proxy with"
        return 1
    fi
    if ! ask_proxy "$command" "$@" >"$into" 2>"$work/error"; then
        miss "the proxy did not give \`$command\`: $(tail -n 1 "$work/error")"
        return 1
    fi
}

# Whether the revocation list in file $1 leaves one of the CA keys in file $2 its trust: else nobody could log in.
leaves_a_ca() {
    while read -r line; do
        printf '%s\n' "$line" >"$work/one_ca"
        ssh-keygen -Q -f "$1" "$work/one_ca" >/dev/null 2>&1 </dev/null && return 0
    done <"$2"
    return 1
}

# Only whole lines of keys, and at least one.
is_ca_file() {
    [ -s "$1" ] || return 1
    keys=$(ssh-keygen -l -f "$1" 2>/dev/null </dev/null | wc -l)
    [ "$keys" -gt 0 ] && [ "$keys" -eq "$(wc -l <"$1")" ]
}

renew_ca() {
    fetch ca "$work/ca" || return 0
    is_ca_file "$work/ca" || {
        miss "what the proxy gave as its node CA are no keys; $ca_file stays as it was"
        return 0
    }
    cmp -s "$work/ca" "$ca_file" && return 0
    replace "$work/ca" "$ca_file" && say "the node CA of the cluster has changed: $ca_file"
}

# sshd lets nobody in whose list is missing, and takes what is no list for one that revokes nothing.
renew_krl() {
    fetch krl "$work/krl" || return 0
    if ! { [ -s "$work/krl" ] && ssh-keygen -Q -l -f "$work/krl" >/dev/null 2>&1 </dev/null; }; then
        miss "what the proxy gave is no revocation list; $krl_file stays as it was"
        return 0
    fi
    leaves_a_ca "$work/krl" "$ca_file" || {
        miss "by the revocation list that the proxy gave nobody could log in; $krl_file stays as it was"
        return 0
    }
    replace "$work/krl" "$krl_file"
}

# What ssh-keygen says of certificate $1: the value of field $2.
field() { ssh-keygen -L -f "$1" 2>/dev/null </dev/null | sed -n "s/^ *$2: //p"; }

# Whether file $1 is a host certificate that names this node.
is_ours() {
    case $(field "$1" Type) in
    *" host certificate") ssh-keygen -L -f "$1" 2>/dev/null </dev/null | sed 's/^ *//' | grep -qxF "$node_id" ;;
    *) return 1 ;;
    esac
}

# The fingerprint of a key or of what a certificate certifies.
print_of_key() { ssh-keygen -l -f "$1" 2>/dev/null </dev/null | cut -d' ' -f2; }
print_in() { field "$1" 'Public key' | sed 's/.* //'; }

# The host key that certificate $1 is for.
key_of() {
    wanted=$(print_in "$1")
    for key in "$ssh_dir"/ssh_host_*_key; do
        if [ -f "$key.pub" ] && [ "$(print_of_key "$key.pub")" = "$wanted" ]; then
            printf '%s\n' "$key"
            return 0
        fi
    done
    return 1
}

# Asks for another certificate in the place of $1; the proxy gives none while that one does.
renew_certificate() {
    certificate=$1
    key=$(key_of "$certificate") || {
        miss "$certificate is for no host key that this machine has; enrol it again, or see \`nodes rekey\`"
        return 0
    }
    rm -f "$work/certificate"
    if ! ask_proxy "host-cert $(field "$certificate" Serial)" -i "$key" >"$work/certificate" 2>"$work/error"; then
        miss "the proxy gave no certificate for $key: $(tail -n 1 "$work/error")"
        return 0
    fi
    [ -s "$work/certificate" ] || return 0
    if ! { is_ours "$work/certificate" && [ "$(print_in "$work/certificate")" = "$(print_in "$certificate")" ]; }; then
        miss "what the proxy gave is no certificate for $key; $certificate stays as it was"
        return 0
    fi
    replace "$work/certificate" "$certificate" || return 0
    certificate_changed=yes
    say "renewed $certificate: valid $(field "$certificate" Valid)"
}

# All that sshd shows and that are of this cluster; those of others are theirs.
renew_certificates() {
    value_of hostcertificate >"$work/certificates"
    while read -r certificate; do
        if is_ours "$certificate"; then
            renew_certificate "$certificate"
        fi
    done <"$work/certificates"
}

renew() {
    values
    places
    [ "$(id -u)" = 0 ] || fail "only root can do it"
    [ -n "$sshd" ] || fail "there is no sshd here"
    sshd_is_content || fail "sshd's configuration is not right, and nothing was renewed: $complaint"
    look_at root
    work=$(mktemp -d "$ssh_dir/.anteroom-renew.XXXXXX") || fail "$ssh_dir can't be written"
    trap 'fail "interrupted"' HUP INT TERM
    renew_ca
    renew_krl
    renew_certificates
    if [ -s "$work/replaced" ]; then
        sshd_is_content || fail "sshd does not take what was renewed: $complaint"
        if [ "$certificate_changed" = yes ]; then
            reload || fail "sshd could not be told to read its configuration again"
        fi
    fi
    clean_up
    exit "$status"
}

renew
