//! Definitions written for the purpose.
use definition::{Error, Source, libvirt, vmx};
use storage::{Bus, Firmware};

#[test]
fn libvirt_lists_by_name_and_the_kernel_by_address() {
    let text = r#"<domstatus><domain type='kvm'><name>web01</name>
      <os firmware='efi'><type arch='x86_64'>hvm</type><boot dev='network'/><boot dev='hd'/></os>
      <devices>
        <disk type='file' device='cdrom'><source file='/iso'/><target dev='sdz' bus='sata'/></disk>
        <disk type='block'><source dev='/dev/vg/data'/><target dev='vdb' bus='virtio'/>
          <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></disk>
        <disk type='file'><driver type='qcow2'/><source file='/i/root.qcow2'/><target dev='vda'/>
          <address type='pci' domain='0x0000' bus='0x00' slot='0x0a' function='0x0'/></disk>
        <disk type='network'><source protocol='rbd' name='pool/x'/><target dev='sda' bus='scsi'/></disk>
        <disk type='file'><source file='/u'/><target dev='sdb' bus='usb'/></disk>
        <controller type='scsi' index='0' model='virtio-scsi'/>
      </devices></domain></domstatus>"#;
    let machine = libvirt(text).unwrap();
    assert_eq!((machine.name.as_str(), machine.firmware), ("web01", Firmware::Uefi));
    let names: Vec<(&str, Bus)> = machine.disks.iter().map(|disk| (disk.name.as_str(), disk.bus)).collect();
    // The kernel meets vdb's address first, and the firmware starts vda.
    assert_eq!(names, [("vdb", Bus::VirtioBlk), ("vda", Bus::VirtioBlk), ("sda", Bus::VirtioScsi)]);
    assert_eq!(machine.boots, Some(vec![1]));
    assert_eq!(machine.disks[0].source, Source::File("/dev/vg/data".into()));
    assert_eq!(machine.disks[1].format.as_deref(), Some("qcow2"));
    assert_eq!(machine.disks[2].source, Source::Elsewhere("on the network, rbd:pool/x".into()));
    assert_eq!(machine.notes, ["disk sdb is left out: its bus is usb"]);
}

#[test]
fn libvirt_orders_and_kernels_of_the_host() {
    let text = r#"<domain type='qemu'><os><type>hvm</type><kernel>/k</kernel></os><devices>
        <disk><source file='a'/><target dev='sda' bus='scsi'/></disk>
        <disk><source file='b'/><target dev='sdb' bus='scsi'/><boot order='2'/></disk>
        <disk><source file='c'/><target dev='sdc' bus='scsi'/><boot order='1'/></disk>
      </devices></domain>"#;
    let machine = libvirt(text).unwrap();
    assert_eq!(machine.boots, Some(vec![2, 1]));
    assert_eq!(machine.disks[0].bus, Bus::Lsi53c895a, "QEMU's lsi, where VMware's would be another");
    assert_eq!(machine.notes.len(), 1);
    let network = text.replace("<boot order='2'/>", "").replace("<boot order='1'/>", "");
    let network = libvirt(&network.replace("<type>hvm</type>", "<boot dev='network'/>")).unwrap();
    assert_eq!((network.boots, network.notes.len()), (None, 2));
    let machine = libvirt(&text.replace("qemu", "vmware")).unwrap();
    assert_eq!(machine.disks[0].bus, Bus::Lsi);
}

#[test]
fn hostile_xml_ends() {
    assert_eq!(libvirt("<a/>"), Err(Error::NoDomain));
    assert!(matches!(libvirt("<domain>"), Err(Error::Xml(_))));
    assert_eq!(libvirt(&" ".repeat(definition::MAX_SIZE + 1)), Err(Error::TooLarge));
    let bomb = r#"<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><domain><name>&b;</name></domain>"#;
    assert!(matches!(libvirt(bomb), Err(Error::Xml(_))));
    let disks = format!("<domain><devices>{}</devices></domain>", "<disk/>".repeat(100_000));
    assert_eq!(libvirt(&disks), Err(Error::TooManyDisks));
    // Deep, and wide.
    for text in ["<a>".repeat(200_000), format!("<domain>{}</domain>", "<a/>".repeat(500_000))] {
        assert!(matches!(libvirt(&text), Err(Error::Xml(_))));
    }
}

#[test]
fn vmx_by_any_case() {
    let text = ".encoding = \"UTF-8\"\r\nDISPLAYNAME = \"a |22b|22\"\nfirmware = \"EFI\"\nscsi0.present = \"TRUE\"
scsi0.virtualDev = \"pvscsi\"\nscsi0:1.present = \"true\"\nscsi0:1.filename = \"b.vmdk\"\nscsi0:0.present = \"TRUE\"
scsi0:0.fileName = \"a.vmdk\"\nscsi0:0.deviceType = \"scsi-hardDisk\"\nscsi1:0.present = \"TRUE\"\nscsi1:0.fileName = \"c.vmdk\"
ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\nide1:0.fileName = \"x.iso\"\n";
    let machine = vmx(text.as_bytes()).unwrap();
    assert_eq!((machine.name.as_str(), machine.firmware), ("a \"b\"", Firmware::Uefi));
    let names: Vec<&str> = machine.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["scsi0:0", "scsi0:1"], "scsi1 is not there");
    assert!(machine.disks.iter().all(|disk| disk.bus == Bus::Pvscsi));
    let bios = text.replace("EFI", "bios") + "bios.hddOrder = \"scsi0:1, scsi0:0\"\n";
    assert_eq!(vmx(bios.as_bytes()).unwrap().boots, Some(vec![1, 0]));
    assert_eq!(vmx(b"\xff\xfe"), Err(Error::NotVmx));
    assert_eq!(vmx(b"encryption.data = \"x\"\na = \"b\""), Err(Error::Encrypted));
}
