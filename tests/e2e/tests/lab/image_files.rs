//! Images in files of the user's, instead of a registry: what `docker save` and others write, and what no one should.

use spank_docker_e2e::Lab;

use crate::failures::each_fails;

/// In alice's directory of this test, which all nodes have: an image with one static program in each form, and hostile files.
/// The last line is the image's id for Docker, with the plugin's own key in the configuration.
const SET_UP: &str = r#"
set -e
umask 077
mkdir -p content/tmp oci/blobs/sha256
cp /sbin/ldconfig content/program
head -c 1000 /dev/urandom >content/unique
chmod -R a+rX content
tar -cf layer.tar -C content .
sum() { sha256sum "$1" | cut -c 1-64; }
size() { stat --format %s "$1"; }
layer=$(sum layer.tar)
arch=amd64; [ "$(uname -m)" = x86_64 ] || arch=arm64
printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' $arch $layer >config.json
config=$(sum config.json)
echo '[{"Config":"config.json","RepoTags":["registry:5000/own/of-file:1"],"Layers":["x/layer.tar"]}]' >manifest.json
mkdir x y
cp layer.tar y
# As docker save writes a layer that the archive has already.
ln -s ../y/layer.tar x/layer.tar
tar -cf app.tar manifest.json config.json x y
gzip -k app.tar
# The one program on a node that writes zstd.
mkdir -p deb/DEBIAN; chmod 755 deb/DEBIAN; cp -r manifest.json config.json x y deb
printf 'Package: app\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\n' >deb/DEBIAN/control
dpkg-deb --build -Zzstd deb app.deb >/dev/null
perl -e 'read STDIN, $_, 8; while (read STDIN, $head, 60) { my ($name, $size) = unpack "A16 x32 A10", $head; read STDIN, $_, $size + $size % 2; print substr $_, 0, $size if $name =~ /^data/ }' <app.deb >app.tar.zst

cp layer.tar oci/blobs/sha256/$layer
cp config.json oci/blobs/sha256/$config
oci=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"%s","digest":"sha256:%s","size":%s}]}' \
    $oci.manifest.v1+json $oci.config.v1+json $config $(size config.json) $oci.layer.v1.tar $layer $(size layer.tar) >manifest
manifest=$(sum manifest)
mv manifest oci/blobs/sha256/$manifest
echo '{"imageLayoutVersion":"1.0.0"}' >oci/oci-layout
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"sha256:%s","size":%s}]}' \
    $oci.manifest.v1+json $manifest $(size oci/blobs/sha256/$manifest) >oci/index.json

mkfifo fifo.tar
head -c $(($(size app.tar) - 20000)) app.tar >cut.tar
head -c 20M /dev/zero >zeros; for n in 1 2 3 4 5 6; do cat zeros; done | gzip -9 >bomb.tar.gz
cp -r oci wrong
printf x | dd of=wrong/blobs/sha256/$layer bs=1 seek=100000 conv=notrunc status=none
echo $layer >wrong.layer
# The configuration of an image that the node has already, without its layers, and under names that only Go reads.
cp -r oci names
other=$(sed "s/\"layers\":.*/\"layers\":[],\"Layers\":[]}/" oci/blobs/sha256/$manifest)
printf %s "$other" >other; cp other names/blobs/sha256/$(sum other)
sed "s/$manifest/$(sum other)/" oci/index.json >names/index.json
mkdir links; ln -s /etc/hostname links/manifest.json; ln -s ../../../../etc/hostname links/index.json
mkdir few; sed 's/^\[\(.*\)\]$/[\1,\1]/' manifest.json >few/manifest.json; tar -cf two.tar -C few .
rm -r content zeros
sed 's/{/{"spank-docker.invalid":"file",/' config.json | sha256sum | cut -c 1-64
"#;

#[test]
fn image_is_read_from_a_file_with_the_rights_of_the_user() {
    let lab = Lab::get();
    let (alice, bob, n3) = (lab.alice(), lab.user("bob"), lab.node("n3"));
    let here = alice.directory();
    let made = alice.command("").sh(SET_UP).run().success();
    let id = made.stdout.trim().lines().last().expect("the id").to_owned();
    let forget = format!(
        "docker images --no-trunc --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep :{id} | xargs -r docker rmi --force; true"
    );
    lab.repair_with(n3.command("").sh(&forget));

    let runs = |options: &str| {
        let outcome = alice.srun(&format!("{options} /program --version")).run().success();
        assert_eq!(
            outcome.lines().iter().filter(|line| line.starts_with("ldconfig")).count(),
            3,
            "{outcome}"
        );
    };
    runs("-N3 --docker-image=./app.tar.gz");
    // It is there already: whatever form it has, the same image.
    runs(&format!("-N3 --docker-image={here}/app.tar --docker-pull=never"));
    runs("-N3 --docker-image=./oci");
    runs("-N3 --docker-image=./app.tar.zst");
    // In another directory, the same relative path is another file, and not the job's image.
    let elsewhere = "srun --docker-image=./app.tar /program --version; mkdir -p b; cd b; srun --docker-image=./app.tar /program";
    let elsewhere = alice.salloc("-w n3 --docker-image=./app.tar").sh(elsewhere).run().failure();
    let line = "n3: image './app.tar': no such file on this node: use a path that all nodes of the job have";
    elsewhere.said(&[line]);
    // Nothing is left of the name by which the engine has pulled it.
    for images in lab.everywhere("docker images --digests") {
        assert!(images.contains("spank-docker.invalid/private/"), "{images}");
        assert!(!images.contains("127.0.0.1"), "{images}");
    }

    let refused = |image: &str, line: &str| {
        let line = format!("n3: image '{image}': {line}");
        bob.srun(&format!("-w n3 --docker-image={image} /program"))
            .run()
            .refused()
            .printed(&[])
            .said(&[&line]);
    };
    if n3.run(&format!("docker inspect --format ok {id}")).code == Some(0) {
        refused(&id, "private, and this node knows no registry name of it: name it by repository and tag");
    }
    refused(
        &format!("{here}/app.tar"),
        "you cannot read it on this node: check its permissions and those of the directories above it",
    );
    // The image of a registry is everybody's, though alice has been first.
    let public = "registry:5000/own/of-file:1";
    n3.sh(&format!("docker load --input {here}/app.tar && docker push {public} && docker rmi {public}"))
        .success();
    let outcome = bob.srun(&format!("-w n3 --docker-image={public} /program --version")).run().success();
    assert!(outcome.stdout.starts_with("ldconfig"), "{outcome}");
    lab.assert_clean();
    n3.run(&format!("docker rmi {public}")).success();
    lab.everywhere(&forget);
}

#[test]
fn hostile_image_file_fails_the_job_in_one_line() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.command("").sh(SET_UP).run().success();
    let layer = alice.command("cat wrong.layer").run().success().stdout.trim().to_owned();
    let damaged = format!("damaged, the content of 'sha256:{layer}' does not have its digest: save it again");
    let cases = [
        ("nothing.tar", "no such file on this node: use a path that all nodes of the job have"),
        ("fifo.tar", "neither a regular file nor a directory: use what docker save, skopeo or buildah write"),
        ("cut.tar", "incomplete, 'y/layer.tar' is missing or cut off: save it again"),
        ("bomb.tar.gz", "more than 200 times as large when it is decompressed: use an uncompressed file"),
        ("wrong", &damaged),
        ("links", "not an image: use what docker save, skopeo or buildah write"),
        ("names", "not an image: use what docker save, skopeo or buildah write"),
        ("two.tar", "contains 2 images: save one alone"),
    ];
    let cases =
        cases.map(|(file, line)| (format!("--docker-image=./{file}"), format!("image './{file}': {line}")));
    each_fails(&lab, "n3", &cases);
    lab.assert_clean();
}
