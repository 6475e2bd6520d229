# shellcheck shell=bash
# Writes an OCI image as a directory (image-layout 1.0.0). Sourced after lib.sh. One layer with the program and the little that it
# reads; no engine, no base image, no shell. The same input makes the same bytes.

# Nobody's number on a machine, and the usual one of images without users.
image_user=65532

write_image() { # <program> <directory> <version> <revision> <seconds since 1970> <architecture> <level of gzip>
    local program=$1 directory=$2 version=$3 revision=$4 epoch=$5 architecture=$6 level=$7
    local root=$scratch/image created tar_digest layer config manifest
    local -a same=(--sort=name --format=gnu --numeric-owner --mtime="@$epoch")
    created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
    rm -rf "$root" "$directory"
    mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/var/lib/countersign" "$directory/blobs/sha256"
    install -m 755 "$program" "$root/usr/bin/countersign"
    echo "countersign:x:$image_user:$image_user::/var/lib/countersign:/" >"$root/etc/passwd"
    echo "countersign:x:$image_user:" >"$root/etc/group"
    # The certificates of broker and approval center are checked against the system's authorities: those of the machine that
    # builds.
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    chmod -R u=rwX,go=rX "$root"
    chmod 700 "$root/var/lib/countersign"
    # The ledger's directory belongs to the program's user, so that a fresh volume does as well.
    tar "${same[@]}" --owner=0 --group=0 --exclude=./var/lib/countersign -C "$root" -cf "$scratch/layer.tar" .
    tar "${same[@]}" --owner="$image_user" --group="$image_user" -C "$root" -rf "$scratch/layer.tar" ./var/lib/countersign
    tar_digest=$(sha256sum <"$scratch/layer.tar" | cut -d' ' -f1)
    gzip "-$level" -n <"$scratch/layer.tar" >"$scratch/layer"
    layer=$(descriptor "$scratch/layer" application/vnd.oci.image.layer.v1.tar+gzip "$directory")

    jq -n --sort-keys --arg created "$created" --arg version "$version" --arg revision "$revision" \
        --arg architecture "$architecture" --arg user "$image_user" --arg diff "sha256:$tar_digest" '{
        created: $created, architecture: $architecture, os: "linux",
        config: {
            User: "\($user):\($user)",
            Entrypoint: ["/usr/bin/countersign"], Cmd: ["serve"],
            Env: ["PATH=/usr/bin"],
            ExposedPorts: {"8080/tcp": {}, "9090/tcp": {}},
            # The default name of the ledger is relative: it lands on the volume.
            WorkingDir: "/var/lib/countersign", Volumes: {"/var/lib/countersign": {}},
            StopSignal: "SIGTERM",
            Labels: {
                "org.opencontainers.image.title": "countersign",
                "org.opencontainers.image.version": $version,
                "org.opencontainers.image.revision": $revision,
                "org.opencontainers.image.created": $created,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0"
            }
        },
        rootfs: {type: "layers", diff_ids: [$diff]},
        history: [{created: $created, created_by: "deploy/release"}]
    }' >"$scratch/config"
    config=$(descriptor "$scratch/config" application/vnd.oci.image.config.v1+json "$directory")

    jq -n --sort-keys --argjson config "$config" --argjson layer "$layer" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: [$layer]
    }' >"$scratch/manifest"
    manifest=$(descriptor "$scratch/manifest" application/vnd.oci.image.manifest.v1+json "$directory")

    jq -n --sort-keys --argjson manifest "$manifest" --arg version "$version" --arg architecture "$architecture" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
        manifests: [$manifest + {
            platform: {architecture: $architecture, os: "linux"},
            annotations: {"org.opencontainers.image.ref.name": $version}
        }]
    }' >"$directory/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$directory/oci-layout"
}

# Moves a file to where its digest names it, and prints the descriptor of it.
descriptor() { # <file> <media type> <directory of the image>
    local digest size
    digest=$(sha256sum <"$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$3/blobs/sha256/$digest"
    jq -n --arg type "$2" --arg digest "sha256:$digest" --argjson size "$size" '{mediaType: $type, digest: $digest, size: $size}'
}
