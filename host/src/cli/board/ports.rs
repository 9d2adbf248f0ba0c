//! `eyas ports`: which serial ports there are, and why one can not be used.

use eyas_device::port::{Listed, list};
use serde_json::json;

use crate::cli::{Answer, say};
use crate::link::{ClientError, diagnosis};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas ports\n\n\
    Ends with 1 if no port can be used.")]
pub(in crate::cli) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<Answer> {
    let ports = list()?;
    let is_any_usable = ports.iter().any(|port| port.fault.is_none());
    if args.json {
        let ports: Vec<_> = ports.iter().map(as_json).collect();
        say(&json!({ "schema": "eyas.ports/1", "ports": ports }).to_string());
    } else if ports.is_empty() {
        say("no serial ports");
    } else {
        for port in ports {
            say_port(port);
        }
    }
    Ok(if is_any_usable {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn usb(port: &Listed) -> Option<String> {
    let (vendor, product) = port.usb_ids?;
    Some(format!("{vendor:04x}:{product:04x}"))
}

fn as_json(port: &Listed) -> serde_json::Value {
    json!({
        "path": port.path.display().to_string(),
        "stable": port.stable.as_ref().map(|path| path.display().to_string()),
        "usb": usb(port),
        "description": port.description,
        "fault": port.fault.as_ref().map(ToString::to_string),
    })
}

fn say_port(port: Listed) {
    let usb = usb(&port).unwrap_or_default();
    let line = format!("{}  {usb}  {}", port.path.display(), port.description);
    say(line.trim_end());
    if let Some(stable) = &port.stable {
        say(&format!("    {}", stable.display()));
    }
    if let Some(fault) = port.fault {
        say(&format!("    can not be used: {fault}"));
        if let Some(found) = diagnosis::of_error(&ClientError::Port(fault)) {
            say(&format!("    {}", found.remedy));
        }
    }
}
