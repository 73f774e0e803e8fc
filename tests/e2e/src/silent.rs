//! A registry that never says a word: a pull from there lasts.

use crate::command::Command;
use crate::lab::Lab;

/// Where each of them has what it has taken; that is how a connection is seen.
const TAKE: &str = "perl -MIO::Socket::INET -e '
    my $listener = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:PORT), Listen => 9, ReuseAddr => 1) or die;
    my @taken;
    while (push @taken, $listener->accept) { open my $file, q(>), q(/run/silent.PORT.asked) }'";

/// One on a node, for the engine there alone.
pub struct SilentRegistry<'a> {
    lab: &'a Lab,
    node: &'a str,
    port: u16,
}

impl<'a> SilentRegistry<'a> {
    /// Starts it.
    #[track_caller]
    pub fn start(lab: &'a Lab, node: &'a str, port: u16) -> Self {
        let registry = Self { lab, node, port };
        lab.repair_with(registry.end());
        let take = TAKE.replace("PORT", &port.to_string());
        lab.node(node).sh(&format!("{take} >/dev/null 2>&1 & echo $! >/run/silent.{port}")).success();
        registry
    }

    /// What a user asks it for.
    pub fn image(&self) -> String {
        format!("localhost:{}/x", self.port)
    }

    /// Waits until the engine has asked.
    #[track_caller]
    pub fn wait_until_asked(&self) {
        let asked = format!("test -e /run/silent.{}.asked", self.port);
        let asked = self.lab.poll(|| (self.lab.node(self.node).run(&asked).code == Some(0)).then_some(()));
        assert!(asked.is_some(), "nobody asked the registry");
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(self) {
        self.end().run().success();
    }

    fn end(&self) -> Command {
        let files = format!("/run/silent.{}", self.port);
        self.lab.node(self.node).command("").sh(&format!("kill $(cat {files}); rm -f {files} {files}.asked"))
    }
}
