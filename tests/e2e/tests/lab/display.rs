//! A display that Slurm forwards (`srun --x11`) works in the container.

use spank_docker_e2e::{IMAGE, Lab};

const COOKIE: &str = "00112233445566778899aabbccddeeff";

/// An X server on display 7 of the first node, whose answer shows whether the client has the cookie. Ends by
/// itself.
const SERVER: &str = r#"use strict; use warnings; use IO::Socket::INET;
alarm 60;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 6007, Listen => 9, ReuseAddr => 1) or die $!;
open my $up, ">", "up" or die;
while (my $client = $server->accept) {
    read $client, my $head, 12;
    my ($name, $cookie) = unpack "x6 v v", $head;
    read $client, my $words, (($name + 3) & ~3) + (($cookie + 3) & ~3);
    my $given = unpack "H*", substr $words, ($name + 3) & ~3, $cookie;
    print $client $given eq $ARGV[0] ? "welcome\n" : "refused\n";
    close $client;
}"#;

/// An X client that finds the cookie of this host and display as libX11 does.
const CLIENT: &str = r#"use strict; use warnings; use IO::Socket::INET;
my ($display) = $ENV{DISPLAY} =~ /^localhost:(\d+)/ or die $ENV{DISPLAY};
open my $file, "<", $ENV{XAUTHORITY} or die "$ENV{XAUTHORITY}: $!";
my $all = do { local $/; <$file> };
chomp(my $host = `hostname`);
my $cookie = "";
while (length $all) {
    my ($family, $address, $number, $name, $data, $rest) = unpack "n n/a n/a n/a n/a a*", $all;
    $cookie = $data if $family == 256 && $address eq $host && $number eq $display;
    $all = $rest;
}
my $server = IO::Socket::INET->new("localhost:" . (6000 + $display)) or die $!;
my $name = "MIT-MAGIC-COOKIE-1";
syswrite $server, pack "a x v4 x2 a20 a16", "l", 11, 0, length $name, length $cookie, $name, $cookie;
print "$host: ", <$server>;"#;

#[test]
fn program_in_the_container_opens_the_display_that_slurm_forwards() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.write("server", SERVER);
    alice.write("client", CLIENT);
    // Slurm asks the xauth of the node on which srun runs for the cookie.
    let script = format!(
        "export DISPLAY=localhost:7 XAUTHORITY=$PWD/cookies
         xauth -q add localhost:7 MIT-MAGIC-COOKIE-1 {COOKIE}
         perl server {COOKIE} & until [ -e up ]; do sleep 0.05; done
         srun --x11 -w n2 perl client
         srun --x11 -w n2 --docker-image={IMAGE} sh -c 'perl client; stat -c %U:%a $XAUTHORITY'
         salloc --x11 -w n2 srun --docker-image={IMAGE} perl client
         kill $!
         XAUTHORITY=/etc/shadow srun -w n2 --docker-image={IMAGE} sh -c 'echo $XAUTHORITY; ls /run/spank-docker/X*'"
    );
    let outcome = alice.command("").sh(&script).run();
    let welcome = "n2: welcome";
    assert_eq!(outcome.lines(), [welcome, welcome, "alice:400", welcome, "/etc/shadow"], "{outcome}");
    lab.assert_clean();
}
