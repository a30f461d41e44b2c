#!/bin/sh
# Tries the image's steps in a bare Debian 12 tree, for machines without a container engine:
#
#   sudo docker/rehearse.sh /tmp/tree [MIRROR]
#
# COPY and RUN are read from the Dockerfile, so what is rehearsed is what is built. Then the
# installed program makes a data folder and checks itself, as the user of the image.
# PIP_* variables, /etc/pip.conf and the certificate authorities of this machine are used inside;
# REHEARSE_MOUNTS names further folders that are shown there (a mirror of packages).
set -eu
tree=${1:?name a folder that does not exist yet}
mirror=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
[ ! -e "$tree" ] || { echo "$tree exists already" >&2; exit 2; }

debootstrap --variant=minbase bookworm "$tree" $mirror
mounted="$tree/proc"
trap 'for point in $mounted; do umount "$point"; done' EXIT
mount -t proc proc "$tree/proc"
for folder in ${REHEARSE_MOUNTS:-}; do
    mkdir -p "$tree$folder"
    mount --bind -o ro "$folder" "$tree$folder"
    mounted="$tree$folder $mounted"
done
for file in /etc/resolv.conf /etc/pip.conf; do
    [ ! -e "$file" ] || cp -L "$file" "$tree$file"
done
authorities=/tmp/rehearse-authorities.pem
cp -L /etc/ssl/certs/ca-certificates.crt "$tree$authorities"
export PIP_CERT="$authorities"
# nothing else of this machine's environment: an image's build has none of it
clean="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root $(env | grep '^PIP_' | tr '\n' ' ')"

grep -E '^(COPY|RUN) ' "$here/Dockerfile" | while read -r verb arguments; do
    case "$verb" in
    COPY)
        set -- $arguments
        for target; do :; done
        while [ $# -gt 1 ]; do
            case "$target" in
            */) mkdir -p "$tree$target" ;;
            *) mkdir -p "$tree$(dirname "$target")" ;;
            esac
            cp -a "$root/$1" "$tree$target"
            shift
        done
        ;;
    RUN)
        echo "== $arguments"
        chroot "$tree" /usr/bin/env -i $clean /bin/sh -c "$arguments"
        ;;
    esac
done

echo "== as the image's user"
as_user() { chroot "$tree" /usr/bin/setpriv --reuid coverslip --regid coverslip --clear-groups \
    /usr/bin/env -i PATH=/opt/coverslip/bin:/usr/bin:/bin HOME=/data COVERSLIP_DATA_DIR=/data "$@"; }
as_user coverslip migrate --recover
as_user coverslip doctor --set http.bind=127.0.0.1:0 --set dimse.bind=127.0.0.1:0
as_user coverslip verify
echo "the image's steps work"
