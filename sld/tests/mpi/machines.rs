//! Two machines on one.

use std::path::Path;
use std::process::Command;

/// Two network namespaces joined by a wire: machines of a small cluster, as far as MPI can tell. Gone when dropped.
pub struct Machines {
    names: [String; 2],
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

impl Machines {
    /// `None` where this is not allowed, or `ip` is not there.
    pub fn new() -> Option<Machines> {
        let names = ["a", "b"].map(|end| format!("sld{}{end}", std::process::id()));
        let [a, b] = &names;
        let machines = Machines { names: names.clone() };
        let mut done = ip(&format!("netns add {a}")) && ip(&format!("netns add {b}"));
        done = done && ip(&format!("link add wire netns {a} type veth peer name wire netns {b}"));
        for (place, name) in names.iter().enumerate() {
            done = done && ip(&format!("-n {name} addr add 10.77.0.{}/24 dev wire", place + 1));
            done = done
                && ip(&format!("-n {name} link set lo up"))
                && ip(&format!("-n {name} link set wire up"));
            // Not every kernel can delay.
            let delay =
                ["netns", "exec", name, "tc", "qdisc", "add", "dev", "wire", "root", "netem", "delay", "2ms"];
            let delayed = Command::new("ip").args(delay).output().is_ok_and(|output| output.status.success());
            println!("machine {name}, delay: {delayed}");
        }
        done.then_some(machines)
    }

    /// The command, which must be one of `mpirun`, with a process on each machine.
    pub fn across(&self, root: &Path, command: &Command) -> Command {
        // What `ssh` would be: a shell on the other machine.
        let agent = root.join("agent.sh");
        let b = &self.names[1];
        let script =
            format!("#!/bin/sh\nshift\nexec ip netns exec {b} unshare --uts sh -c \"hostname other; $*\"\n");
        std::fs::write(&agent, script).expect("written");
        assert!(Command::new("chmod").arg("+x").arg(&agent).status().expect("chmod").success());
        let mut across = Command::new("ip");
        across.args(["netns", "exec", &self.names[0], "mpirun", "-H", "10.77.0.1:1,10.77.0.2:1"]);
        across.args(["--mca", "plm_rsh_agent", agent.to_str().expect("a name"), "--mca", "btl", "tcp,self"]);
        for layer in ["btl_tcp_if_include", "oob_tcp_if_include"] {
            across.args(["--mca", layer, "10.77.0.0/24"]);
        }
        across.args(command.get_args()).current_dir(command.get_current_dir().unwrap_or(root));
        across
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}
