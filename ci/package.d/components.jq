# From the output of `cargo metadata` to a list of components, CycloneDX 1.5: what is linked into the programs, without
# what only builds or tests them.

def purl: "pkg:cargo/\(.name)@\(.version)";

($sums | split("\n") | map(select(. != "") | split(" ") | { key: .[0], value: .[1] }) | from_entries) as $sum
| . as $all
| (INDEX(.packages[]; .id)) as $package
| (.resolve.nodes | map({
    key: .id,
    value: [.deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg
      | select($package[.].targets | all(.kind != ["proc-macro"]))]
  }) | from_entries) as $needs
| def reached($found; $new):
    if $new == [] then $found
    else ($found + $new) as $now | reached($now; ([$new[] | $needs[.][]] | unique) - $now)
    end;
  reached([]; $all.workspace_members) as $linked
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: $date,
      component: ($all.packages[] | select(.name == "spank-docker")
        | { type: "application", name, version, "bom-ref": purl, purl: purl, licenses: [{ expression: .license }] }),
      tools: { components: [
        { type: "application", name: "rustc", version: $rustc },
        { type: "application", name: "zig", version: $zig }
      ] }
    },
    components: [
      $linked[] | $package[.] | select(.name != "spank-docker")
      | { type: "library", name, version, "bom-ref": purl, purl: purl }
        + (if .license then { licenses: [{ expression: (.license | gsub("/"; " OR ")) }] } else {} end)
        + ($sum["\(.name)@\(.version)"] as $content
          | if $content then { hashes: [{ alg: "SHA-256", content: $content }] } else {} end)
    ] | sort_by(.purl),
    dependencies: [
      $linked[] | . as $id | $package[$id]
      | { ref: purl, dependsOn: ([$needs[$id][] | $package[.] | purl] | sort) }
    ] | sort_by(.ref)
  }
