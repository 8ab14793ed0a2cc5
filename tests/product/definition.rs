//! Machines that a definition describes: libvirt's and VMware's.

use crate::support::{copy, run, sample};

const DOMAIN: &str = "<domain type='kvm'><name>web01</name><os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='centos7-vda.qcow2'/><target dev='BUS'/></disk>
<controller type='scsi' index='0' model='virtio-scsi'/></devices></domain>";

fn simulate(arguments: &[&str]) -> (i32, String, String) {
    run(&[&["simulate"], arguments].concat())
}

#[test]
fn a_domain_gives_disks_and_buses() {
    let (folder, image) = copy("centos7-vda.qcow2");
    let domain = folder.path().join("web01.xml");
    std::fs::write(&domain, DOMAIN.replace("BUS", "vda")).unwrap();
    let domain = domain.to_str().unwrap();
    let (code, shown, said) = simulate(&["--domain", domain]);
    assert!(code == 0 && shown.contains("virtio-blk: vda=disk0"), "{shown}{said}");
    // The founding fault on the machine as defined.
    let (code, shown, _) = run(&["check", "--domain", domain]);
    assert!(code == 1 && shown.contains("fstab.unstable-device"), "{shown}");

    std::fs::write(domain, DOMAIN.replace("BUS", "sda")).unwrap();
    let (code, shown, _) = simulate(&["--domain", domain]);
    assert!(code == 1 && shown.contains("virtio-scsi: sda=disk0") && shown.contains("emergency"), "{shown}");
    let (code, shown, _) = simulate(&["--domain", domain, "--bus", "virtio"]);
    assert!(code == 0 && shown.contains("virtio-blk: vda=disk0"), "{shown}");

    // The image lies elsewhere than the host of the machine has it.
    std::fs::remove_file(&image).unwrap();
    let (code, _, said) = simulate(&["--domain", domain]);
    assert!(code == 2 && said.contains("disk sda: give a copy of it as IMAGE"), "{said}");
    let given = sample("centos7-vda.qcow2");
    let (code, shown, said) = simulate(&["--domain", domain, given.to_str().unwrap()]);
    assert!(code == 1 && shown.contains("virtio-scsi: sda=disk0"), "{shown}{said}");
    let other = sample("centos7-vda-ext4.qcow2");
    let (code, _, said) = simulate(&["--domain", domain, given.to_str().unwrap(), other.to_str().unwrap()]);
    assert!(code == 2 && said.contains("is the file of no disk in web01.xml"), "{said}");
}

/// What a definition states is not guessed: a raw disk may hold anything, also what names other files.
#[test]
fn the_stated_format_counts() {
    let (folder, _image) = copy("centos7-vda.qcow2");
    let domain = folder.path().join("web01.xml");
    std::fs::write(&domain, DOMAIN.replace("BUS", "vda").replace("'qcow2'/", "'raw'/")).unwrap();
    let (code, shown, said) = simulate(&["--domain", domain.to_str().unwrap()]);
    assert!(code == 1 && shown.contains("is taken for a raw disk, and is a qcow2 image"), "{shown}{said}");
}

#[test]
fn a_vmx_file_gives_its_machine() {
    let (folder, _image) = copy("centos7-vda.qcow2");
    let vmx = folder.path().join("web01.vmx");
    let text = "displayName = \"web01\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\n\
        scsi0:0.deviceType = \"scsi-hardDisk\"\nscsi0:0.fileName = \"C:\\vms\\centos7-vda.qcow2\"\n";
    std::fs::write(&vmx, text).unwrap();
    let given = sample("centos7-vda.qcow2");
    let (code, shown, said) = simulate(&["--vmx", vmx.to_str().unwrap(), given.to_str().unwrap()]);
    assert!(code == 1 && shown.contains("pvscsi: sda=disk0") && shown.contains("emergency"), "{shown}{said}");
}

#[test]
fn what_is_no_definition_is_refused() {
    let (folder, _image) = copy("centos7-vda.qcow2");
    let file = folder.path().join("x");
    for (text, option, reason) in [
        ("<domain", "--domain", "not well-formed XML"),
        ("<pool/>", "--domain", "no domain in this XML"),
        ("<domain/>", "--domain", "x defines no hard disk"),
        ("", "--vmx", "no line of this file is"),
        ("encryption.data = \"\"", "--vmx", "encrypted"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, _, said) = simulate(&[option, file.to_str().unwrap()]);
        assert!(code == 2 && said.contains(reason), "{text}: {said}");
    }
}
