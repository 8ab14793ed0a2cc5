//! Images against the tools that made them, against power cuts, and against those who mean harm.

#[cfg(test)]
mod blocks;
#[cfg(test)]
mod blocks_hostile;
#[cfg(test)]
mod blocks_power_cut;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod ova;
#[cfg(test)]
mod qcow2_check;
#[cfg(test)]
mod qcow2_encrypted;
#[cfg(test)]
mod qcow2_power_cut;
#[cfg(test)]
mod qcow2_read;
#[cfg(test)]
mod qcow2_write;
#[cfg(test)]
mod rename;
#[cfg(test)]
mod support;
#[cfg(test)]
mod vdi;
#[cfg(test)]
mod vhd;
#[cfg(test)]
mod vhdx_chain;
#[cfg(test)]
mod vhdx_check;
#[cfg(test)]
mod vhdx_hostile;
#[cfg(test)]
mod vhdx_log;
#[cfg(test)]
mod vhdx_power_cut;
#[cfg(test)]
mod vhdx_read;
#[cfg(test)]
mod vhdx_support;
#[cfg(test)]
mod vhdx_write;
#[cfg(test)]
mod vmdk_hostile;
#[cfg(test)]
mod vmdk_odd;
#[cfg(test)]
mod vmdk_power_cut;
#[cfg(test)]
mod vmdk_read;
#[cfg(test)]
mod vmdk_support;
#[cfg(test)]
mod vmdk_write;
