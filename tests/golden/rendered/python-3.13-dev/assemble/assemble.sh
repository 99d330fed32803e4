#!/bin/sh
# Assembles the root file system of python:3.13-dev for linux/amd64 in /rootfs, offline.
# Rendered by `goldsmith render`, not edited.
set -eu
export LC_ALL=C
umask 022

cd /pool
sha256sum --check --quiet --strict /assemble/SHA256SUMS

mkdir /rootfs
cd /rootfs
# Older packages still ship files in /lib or /bin: they land in /usr through these links.
for alias in bin lib lib64 sbin; do
    mkdir -p "usr/$alias"
    ln -s "usr/$alias" "$alias"
done

# dpkg's real database, as if dpkg had installed the packages; a child continues its parent's.
mkdir -p var/lib/dpkg/info var/lib/dpkg/triggers /control
cp /parent/var/lib/dpkg/status var/lib/dpkg/status
find /parent/var/lib/dpkg/triggers -type f -exec cp {} var/lib/dpkg/triggers \;
while read -r file name; do
    dpkg-deb --fsys-tarfile "/pool/$file" > /data.tar
    tar --extract --preserve-permissions --keep-directory-symlink --no-overwrite-dir --no-same-owner --file /data.tar
    rm -rf /control/*
    dpkg-deb --ctrl-tarfile "/pool/$file" | tar --extract --directory /control
    info=$name
    if grep -q '^Multi-Arch: *same' /control/control; then
        info=$name:$(sed -n 's/^Architecture: *//p' /control/control)
    fi
    tar --list --quoting-style=literal --file /data.tar \
        | sed -e 's,^\./,/,' -e 's,^\.$,/,' -e 's,/$,,' -e 's,^$,/.,' > "var/lib/dpkg/info/$info.list"
    sed -e '1a Status: install ok installed' /control/control >> var/lib/dpkg/status
    if [ -f /control/conffiles ]; then
        conffiles=""
        while read -r path; do
            case $path in /*) ;; *) continue ;; esac
            if [ -f ".$path" ] && [ ! -L ".$path" ]; then
                sum=$(md5sum < ".$path")
                conffiles="$conffiles $path ${sum%% *}
"
            fi
        done < /control/conffiles
        if [ -n "$conffiles" ]; then
            printf 'Conffiles:\n%s' "$conffiles" >> var/lib/dpkg/status
        fi
    fi
    echo >> var/lib/dpkg/status
    if [ -f /control/triggers ]; then
        while read -r directive trigger _; do
            case $directive in
                interest | interest-await) await= ;;
                interest-noawait) await=/noawait ;;
                *) continue ;;
            esac
            case $trigger in
                /*) echo "$trigger $info$await" >> var/lib/dpkg/triggers/File ;;
                *) echo "$info$await" >> "var/lib/dpkg/triggers/$trigger" ;;
            esac
        done < /control/triggers
    fi
    rm /control/control
    for member in /control/*; do
        if [ -f "$member" ]; then
            mode=0644
            case ${member##*/} in config | postinst | postrm | preinst | prerm) mode=0755 ;; esac
            install -m "$mode" "$member" "var/lib/dpkg/info/$info.${member##*/}"
        fi
    done
done < /assemble/packages
rm -rf /control /data.tar

# The stand-in for the maintainer script of ca-certificates.
if [ -d usr/share/ca-certificates/mozilla ]; then
    mkdir -p "$(dirname etc/ssl/certs/ca-certificates.crt)"
    cat usr/share/ca-certificates/mozilla/*.crt > etc/ssl/certs/ca-certificates.crt
    (cd usr/share/ca-certificates && printf '%s\n' mozilla/*.crt) > etc/ca-certificates.conf
fi

rm -rf usr/share/bug usr/share/doc-base usr/share/info usr/share/lintian usr/share/locale usr/share/man
if [ -d usr/share/doc ]; then
    find usr/share/doc ! -type d ! -name copyright -delete
fi
find . ! -type l -perm /6000 -exec chmod ug-s {} +
find . ! -type l -perm -0002 ! -path ./tmp -exec chmod o-w,-t {} +
# The links of a merged /usr are the parent's.
rm -f bin lib lib64 sbin

mkdir -p "$(dirname /rootfs/usr/bin/python)"
ln -sfn /usr/bin/python3.13 /rootfs/usr/bin/python
mkdir -p "$(dirname /rootfs/usr/bin/python3)"
ln -sfn /usr/bin/python3.13 /rootfs/usr/bin/python3
