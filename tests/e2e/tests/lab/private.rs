//! Images of a registry that requires authentication: usable for users who have access, and for no other user
//! of the node.

use spank_docker_e2e::{IMAGE, Lab, Node, User};

/// On n3: a registry in which alice has the password `open sesame`, and in it an image with one static program.
const SET_UP: &str = r#"
set -e
mkdir -p /tmp/private/data /tmp/private/login
cd /tmp/private
cat >registry.yml <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: /tmp/private/data}}
http: {addr: "127.0.0.1:5003"}
auth: {htpasswd: {realm: private, path: /tmp/private/htpasswd}}
END
echo 'alice:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW' >htpasswd
cat >start <<END
#!/bin/sh
OTEL_TRACES_EXPORTER=none setsid docker-registry serve /tmp/private/registry.yml >/tmp/private/log 2>&1 </dev/null &
echo \$! >/tmp/private/pid
until ss --no-header --listening --tcp 'sport = 5003' | grep -q .; do sleep 0.05; done
END
sh start
head -c 1000 /dev/urandom >unique
cp /sbin/ldconfig program
tar -cf content.tar program unique
docker import content.tar localhost:5003/own/secret
echo '{"auths":{"localhost:5003":{"auth":"YWxpY2U6b3BlbiBzZXNhbWU="}}}' >login/config.json
docker --config login push --quiet localhost:5003/own/secret
# Podman has another digest before.
docker rmi localhost:5003/own/secret >&2
docker --config login pull --quiet localhost:5003/own/secret
docker inspect --format '{{.Id}}' localhost:5003/own/secret
docker inspect --format '{{index .RepoDigests 0}}' localhost:5003/own/secret
docker rmi localhost:5003/own/secret >&2
"#;

/// Replaces the registry by a server that answers the first request of the protocol, and then hangs.
const HANG: &str = r#"
cd /tmp/private
cat >hang.pl <<'END'
use IO::Socket::INET;
$SIG{CHLD} = "IGNORE";
my $server = IO::Socket::INET->new(Listen => 9, ReuseAddr => 1, LocalAddr => "127.0.0.1", LocalPort => 5003) or die;
while (my $client = $server->accept) {
    next if fork;
    while (my $line = <$client>) {
        sleep 300 if $line =~ m{^(GET|HEAD) /v2/.};
        print $client "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" if $line =~ /^\r/;
    }
    exit;
}
END
setsid perl hang.pl >>log 2>&1 </dev/null &
echo $! >pid
until ss --no-header --listening --tcp 'sport = 5003' | grep -q .; do sleep 0.05; done
"#;

/// A registry of bob's that has only the id ($id) of an image, in a manifest: for everyone, or, if there is a
/// file `closed`, for those who log in.
const OF_BOB: &str = r#"
cd /tmp/private
docker=application/vnd.docker
manifest='{"schemaVersion":2,"mediaType":"'$docker.distribution.manifest.v2+json'","config":{"mediaType":"'$docker.container.image.v1+json'","size":700,"digest":"'$id'"},"layers":[{"mediaType":"'$docker.image.rootfs.diff.tar.gzip'","size":900,"digest":"'$id'"}]}'
cat >bob.pl <<'END'
use IO::Socket::INET;
my ($manifest, $digest) = @ARGV;
my $type = "Content-Type: application/vnd.docker.distribution.manifest.v2+json\r\nDocker-Content-Digest: sha256:$digest";
$SIG{CHLD} = "IGNORE";
my $server = IO::Socket::INET->new(Listen => 9, ReuseAddr => 1, LocalAddr => "127.0.0.1", LocalPort => 5004) or die;
while (my $client = $server->accept) {
    next if fork;
    # TLS is tried first. Engines go on without where they read such an answer.
    recv $client, my $first, 1, MSG_PEEK;
    if (ord $first == 22) { print $client "HTTP/1.1 400 Bad Request\r\n\r\n"; exit; }
    my ($method, $path, $login);
    while (my $line = <$client>) {
        ($method, $path, $login) = ($1, $2, 0) if $line =~ m{^(GET|HEAD) (\S+)};
        $login = 1 if $line =~ /^Authorization: Basic/i;
        next if $line !~ /^\r/;
        my ($head, $body) = ("200 OK\r\n", "{}");
        ($head, $body) = ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=bob\r\n", "{}") if !$login and -e "closed";
        ($head, $body) = ("200 OK\r\n$type\r\n", $manifest) if $path =~ m{/manifests/} and $head =~ /^200/;
        ($head, $body) = ("404 Not Found\r\n", "{}") if $path =~ m{/blobs/};
        print $client "HTTP/1.1 ${head}Content-Length: " . length($body) . "\r\n\r\n" . ($method eq "HEAD" ? "" : $body);
    }
    exit;
}
END
# With containerd's image store the id is the digest of a manifest that the engine has.
case $(docker info --format '{{.DriverStatus}}') in
*containerd.snapshotter*) digest=${id#sha256:} ;;
*) digest=$(printf %s "$manifest" | sha256sum | cut -d ' ' -f 1) ;;
esac
setsid perl bob.pl "$manifest" "$digest" >>log 2>&1 </dev/null &
echo $! >pid.bob
until ss --no-header --listening --tcp 'sport = 5004' | grep -q .; do sleep 0.05; done
"#;

const TEAR_DOWN: &str = "
rm -rf /home/alice/.docker /home/bob/.docker /run/spank-docker/pull.1
cd /tmp/private 2>/dev/null || exit 0
kill -KILL -$(cat pid)
[ ! -e pid.bob ] || kill -KILL -$(cat pid.bob)
docker images --no-trunc --format '{{.Repository}} {{.ID}}' | grep -E '^(localhost:500[34]/|spank-docker.invalid/private)' |
    cut -d ' ' -f 2 | sort -u | xargs -r docker rmi --force
rm -f /usr/local/bin/docker-credential-mine
rm -rf /tmp/private";

fn log_in(user: &User<'_>, config: &str) {
    let script = "mkdir -p ~/.docker && umask 077 && cat >~/.docker/config.json";
    user.command("").sh(script).stdin(config).run().success();
}

fn runs(user: &User<'_>, options: &str) {
    let outcome = user.srun(&format!("-w n3 {options} /program --version")).run().success();
    assert!(outcome.stdout.starts_with("ldconfig"), "{outcome}");
}

fn refused(user: &User<'_>, options: &str, line: &str) {
    let outcome = user.srun(&format!("-w n3 {options} /program --version")).run().refused();
    outcome.printed(&[]).said(&[&format!("n3: {line}")]);
}

#[test]
fn private_image_is_usable_only_with_access_to_its_registry() {
    let lab = Lab::within(std::time::Duration::from_secs(240));
    let (alice, bob, n3) = (lab.alice(), lab.user("bob"), lab.node("n3"));
    let end = n3.command("").sh(TEAR_DOWN);
    lab.repair_with(end.clone());
    let made = n3.sh(SET_UP).success();
    let [_, .., id, digest] = made.lines()[..] else { panic!("{made}") };
    let secret = Secret { alice, bob, n3, id, digest };

    secret.is_for_users_with_a_login_alone();
    secret.is_not_served_on_the_word_of_another_registry();
    secret.needs_a_login_that_can_be_used();
    secret.stays_private_when_its_pull_was_interrupted();
    secret.is_the_only_image_with_a_mark();
    secret.is_refused_when_its_registry_does_not_answer();
    // The password is in no log, and in no record that other users can read.
    let seen = "grep -lE 'sesame|YWxpY2U6b3BlbiBzZXNhbWU' /var/log/slurm/* /var/log/dockerd.log /var/log/slurmctld/* 2>/dev/null || true";
    assert_eq!(lab.everywhere(seen), ["", "", ""]);
    end.run().success();
    lab.assert_clean();
}

/// Its image by its tag.
const TAG: &str = "--docker-image=localhost:5003/own/secret";

/// The image of alice's registry, on n3.
struct Secret<'a> {
    alice: User<'a>,
    bob: User<'a>,
    n3: Node<'a>,
    id: &'a str,
    digest: &'a str,
}

impl Secret<'_> {
    fn by_id(&self) -> String {
        format!("--docker-image={}", self.id)
    }

    /// The image's digest without the registry, as messages name it.
    fn name(&self) -> &str {
        self.digest.strip_prefix("localhost:5003/").expect("a digest")
    }

    fn is_for_users_with_a_login_alone(&self) {
        let Self { alice, bob, .. } = self;
        refused(bob, TAG, &no_login("own/secret"));
        log_in(alice, LOGIN_OF_ALICE);
        // A user who requests it while another user's job pulls it for the first time gets no access.
        std::thread::scope(|threads| {
            threads.spawn(|| runs(alice, TAG));
            let outcome = bob.srun(&format!("-w n3 {TAG} /program --version")).run().failure();
            let lines = [no_login("own/secret"), no_login(self.name())].map(|line| format!("n3: {line}"));
            assert!(
                matches!(outcome.reported()[..], [line] if lines.iter().any(|known| known == line)),
                "{outcome}"
            );
            outcome.printed(&[]);
        });
        // Now the image is on the node.
        let by_digest = format!("--docker-image={}", self.digest);
        for options in [TAG, &self.by_id(), &format!("{TAG} --docker-pull=never"), &by_digest] {
            refused(bob, options, &no_login(self.name()));
            runs(alice, options);
        }
        refused(bob, &format!("{TAG} --docker-pull=always"), &no_login("own/secret"));
        runs(alice, &format!("{TAG} --docker-pull=always"));
        // The same holds for the container of a step.
        let step = |user: &User<'_>| user.salloc(&format!("-w n3 srun {TAG} /program --version")).run();
        step(bob).refused().printed(&[]).said(&[&format!("n3: {}", no_login(self.name()))]);
        assert!(step(alice).success().stdout.starts_with("ldconfig"));
    }

    fn is_not_served_on_the_word_of_another_registry(&self) {
        let Self { alice, bob, n3, .. } = self;
        // The engine has the image: it asks another registry only for its id, which is not a secret.
        n3.sh(&format!("id={}{OF_BOB}", self.id)).success();
        log_in(bob, r#"{"auths":{"localhost:5004":{"auth":"Ym9iOmJvYg=="}}}"#);
        let is_podman = n3.is_podman();
        for image in ["open", "closed"] {
            n3.run(&format!("touch /tmp/private/{image}")).success();
            let option = format!("--docker-image=localhost:5004/{image}/any");
            // Even when that registry serves it, and when the image has that name already.
            for _ in 0..2 {
                if is_podman {
                    // The engine requests the configuration too, which bob does not have.
                    bob.srun(&format!("-w n3 {option} /program --version")).run().refused().printed(&[]);
                } else {
                    refused(bob, &option, &no_login(self.name()));
                }
            }
        }
        let named = n3.run("docker image inspect localhost:5004/open/any localhost:5004/closed/any");
        assert_eq!(named.code, Some(i32::from(is_podman)), "{named}");
        runs(alice, TAG);
    }

    fn needs_a_login_that_can_be_used(&self) {
        let Self { bob, n3, .. } = self;
        let registry = format!("image '{}': registry 'localhost:5003' denies access", self.name());
        log_in(bob, r#"{"auths":{"localhost:5003":{"auth":"Ym9iOmd1ZXNz"}}}"#);
        let line = "with your login in ~/.docker/config.json: log in again, or ask for permission to pull this image";
        refused(bob, TAG, &format!("{registry} {line}"));
        // The helper would run as root, and is a program of the user's.
        n3.sh("printf '#!/bin/sh\ntouch /tmp/private/ran\n' | install -m 0755 /dev/stdin /usr/local/bin/docker-credential-mine").success();
        log_in(bob, r#"{"auths":{"localhost:5003":{}},"credsStore":"mine"}"#);
        let line = "without a login: your login is in credential helper 'mine', which spank-docker does not run: \
                    add a plain entry to ~/.docker/config.json";
        refused(bob, TAG, &format!("{registry} {line}"));
        log_in(bob, r#"{"auths":{},"credHelpers":{"localhost:5003":"mine"}}"#);
        bob.srun(&format!("-w n3 {TAG} /program --version")).run().failure().printed(&[]);
        n3.run("ls /tmp/private/ran").failure();
        // A link to a file that only root and alice can read.
        bob.command("").sh("ln -sf /home/alice/.docker/config.json ~/.docker/config.json").run().success();
        let line = "without a login: ~/.docker/config.json cannot be read with your permissions on this node: \
                    check them";
        refused(bob, TAG, &format!("{registry} {line}"));
    }

    /// The tag by which the engine marks the image as private.
    fn mark(&self) -> String {
        let hex = self.id.strip_prefix("sha256:").expect("an id");
        let tags = "docker images --format '{{.Repository}}:{{.Tag}}' | grep ^spank-docker.invalid/private/";
        let mark = self.n3.sh(tags).success().stdout.trim().to_owned();
        assert!(mark.ends_with(&format!(":{hex}")), "{mark}");
        mark
    }

    fn stays_private_when_its_pull_was_interrupted(&self) {
        let Self { bob, n3, id, .. } = self;
        let mark = self.mark();
        // As if the process that pulled had been killed before the image was marked.
        n3.sh(&format!(
            "docker rmi {mark}; install -d -m 0700 /run/spank-docker; printf localhost:5003/own/secret >/run/spank-docker/pull.1"
        ))
        .success();
        bob.command("").sh("rm ~/.docker/config.json").run().success();
        refused(bob, &self.by_id(), &no_login(self.name()));
        n3.run(&format!("docker image inspect --format {{{{.Id}}}} {mark}")).success().printed(&[id]);
        n3.run("ls /run/spank-docker/pull.1").failure();
        // Images that were public before that pull stay public.
        n3.sh(&format!(
            "docker rmi {mark}; printf 'localhost:5003/own/secret\n{id}' >/run/spank-docker/pull.1"
        ))
        .success();
        runs(bob, &self.by_id());
        n3.run("ls /run/spank-docker/pull.1").failure();
        n3.run(&format!("docker image inspect {mark}")).failure();
        n3.run(&format!("docker tag {id} {mark}")).success();
        // No user can remove the mark by pulling another image under that name.
        let name = mark.replace("spank-docker.invalid/", "");
        refused(
            bob,
            &format!("--docker-image={mark} --docker-pull=always"),
            &format!("image '{name}': not found in registry 'spank-docker.invalid'"),
        );
    }

    fn is_the_only_image_with_a_mark(&self) {
        let Self { alice, n3, id, .. } = self;
        // A public image is not marked, even when a user with a login pulls it.
        n3.run(&format!("docker rmi --force {IMAGE}")).success();
        log_in(alice, r#"{"auths":{"registry:5000":{"auth":"YWxpY2U6eA=="}}}"#);
        alice.srun_image("-w n3 hostname").run().success().printed(&["n3"]);
        // Asked for images of a name, Podman also lists those that had it before.
        let marks = "docker images --no-trunc --format '{{.Repository}} {{.ID}}' | sed -n 's,^spank-docker.invalid/private/.* ,,p'";
        let marks = n3.sh(marks).success();
        assert_eq!(marks.lines(), [*id], "{marks}");
    }

    fn is_refused_when_its_registry_does_not_answer(&self) {
        let Self { alice, n3, .. } = self;
        log_in(alice, LOGIN_OF_ALICE);
        let line = |why: &str| {
            format!(
                "image 'localhost:5003/own/secret': private, and registry 'localhost:5003' cannot confirm \
                 that you may use it: {why}"
            )
        };
        n3.sh("kill $(cat /tmp/private/pid); until ! ss --no-header --listening --tcp 'sport = 5003' | grep -q .; do sleep 0.05; done")
            .success();
        refused(alice, TAG, &line("connection refused"));
        // A slow registry is not the engine's fault.
        n3.sh(HANG).success();
        refused(alice, TAG, &line("no answer within 20 s"));
    }
}

/// The login with which alice has access.
const LOGIN_OF_ALICE: &str = r#"{"auths":{"localhost:5003":{"auth":"YWxpY2U6b3BlbiBzZXNhbWU="}}}"#;

fn no_login(image: &str) -> String {
    format!(
        "image '{image}': registry 'localhost:5003' denies access without a login: \
         log in with 'docker login', or add an entry for it to ~/.docker/config.json"
    )
}
