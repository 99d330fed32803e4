#!/bin/sh
# Assembles the root file system of base:13 for linux/amd64 in /rootfs, offline.
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

mkdir -p var/lib/dpkg/status.d
while read -r file name; do
    dpkg-deb --fsys-tarfile "/pool/$file" | tar --extract --preserve-permissions --keep-directory-symlink \
        --no-overwrite-dir --no-same-owner
    dpkg-deb --ctrl-tarfile "/pool/$file" | tar --extract --to-stdout ./control \
        | sed '1a Status: install ok installed' > "var/lib/dpkg/status.d/$name"
    if dpkg-deb --ctrl-tarfile "/pool/$file" | tar --list | grep -qx ./md5sums; then
        dpkg-deb --ctrl-tarfile "/pool/$file" | tar --extract --to-stdout ./md5sums \
            > "var/lib/dpkg/status.d/$name.md5sums"
    fi
done < /assemble/packages

# The stand-in for the maintainer script of ca-certificates.
if [ -d usr/share/ca-certificates/mozilla ]; then
    mkdir -p "$(dirname etc/ssl/certs/ca-certificates.crt)"
    cat usr/share/ca-certificates/mozilla/*.crt > etc/ssl/certs/ca-certificates.crt
fi

rm -rf usr/share/bug usr/share/doc-base usr/share/info usr/share/lintian usr/share/locale usr/share/man \
    boot etc/ca-certificates etc/cron.d etc/cron.daily etc/cron.monthly etc/cron.weekly etc/init.d etc/logrotate.d etc/profile.d etc/skel etc/ufw etc/update-motd.d usr/lib/binfmt.d usr/lib/systemd/system usr/lib/systemd/user usr/lib/tmpfiles.d usr/sbin/update-ca-certificates usr/share/applications usr/share/apport usr/share/bash-completion usr/share/gdb usr/share/icons usr/share/pixmaps usr/share/vim usr/share/zsh var/backups usr/share/ca-certificates/mozilla
# What the definition leaves out of its packages.
tar --create --file /kept.tar -- usr/lib/x86_64-linux-gnu/gconv/ANSI_X3.110.so usr/lib/x86_64-linux-gnu/gconv/CP1252.so usr/lib/x86_64-linux-gnu/gconv/ISO8859-1.so usr/lib/x86_64-linux-gnu/gconv/ISO8859-15.so usr/lib/x86_64-linux-gnu/gconv/UNICODE.so usr/lib/x86_64-linux-gnu/gconv/UTF-16.so usr/lib/x86_64-linux-gnu/gconv/UTF-32.so usr/lib/x86_64-linux-gnu/gconv/UTF-7.so usr/lib/x86_64-linux-gnu/gconv/gconv-modules
rm -rf -- usr/lib/x86_64-linux-gnu/gconv
tar --extract --preserve-permissions --file /kept.tar
rm /kept.tar
if [ -d usr/share/doc ]; then
    find usr/share/doc ! -type d ! -name copyright -delete
fi
find . ! -type l -perm /6000 -exec chmod ug-s {} +
find . ! -type l -perm -0002 ! -path ./tmp -exec chmod o-w,-t {} +

mkdir -p "$(dirname /rootfs/bin)"
ln -sfn usr/bin /rootfs/bin
install -D -m 0644 -o 0 -g 0 /assemble/rootfs/etc/group /rootfs/etc/group
install -D -m 0644 -o 0 -g 0 /assemble/rootfs/etc/nsswitch.conf /rootfs/etc/nsswitch.conf
install -D -m 0644 -o 0 -g 0 /assemble/rootfs/etc/passwd /rootfs/etc/passwd
install -d -m 0700 -o 65532 -g 65532 /rootfs/home/nonroot
mkdir -p "$(dirname /rootfs/lib)"
ln -sfn usr/lib /rootfs/lib
mkdir -p "$(dirname /rootfs/lib64)"
ln -sfn usr/lib64 /rootfs/lib64
install -d -m 0700 -o 0 -g 0 /rootfs/root
mkdir -p "$(dirname /rootfs/sbin)"
ln -sfn usr/sbin /rootfs/sbin
install -d -m 1777 -o 0 -g 0 /rootfs/tmp
