# A bitstream with vta_axi beside the processor of a Zynq-7000 or Zynq UltraScale+.
#
#   vivado -mode batch -source vivado.tcl -tclargs PART FOLDER NAME VALUE ...
#
# NAME VALUE are parameters of vta_axi: `python -m tvm_bitenc.vta.ecp5 FILE --parameters` prints them.
# It leaves vta.bit and vta.hwh in FOLDER. Written from the manuals; it hasn't been run.

if {$argc < 2} { error "give PART FOLDER NAME VALUE ..." }
lassign $argv part folder
set parameters [lrange $argv 2 end]
set rtl [file join [file dirname [file normalize [info script]]] .. rtl]
set megahertz 50

create_project vta $folder/vivado -part $part -force
add_files [glob $rtl/*.v $rtl/*.vh $rtl/axi/*.v $rtl/axi/*.vh]
# The top module of a block design must be Verilog; the others use a little of SystemVerilog.
set_property file_type SystemVerilog [get_files -filter {NAME !~ *vta_axi.v && NAME =~ *.v}]
set_property include_dirs [list $rtl $rtl/axi] [current_fileset]
update_compile_order -fileset sources_1

create_bd_design design_1
set is_7000 [string match -nocase xc7z* $part]
if {$is_7000} {
    set processor [create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 processor]
    set_property -dict [list \
        CONFIG.PCW_USE_M_AXI_GP0 1 CONFIG.PCW_USE_S_AXI_HP0 1 \
        CONFIG.PCW_USE_FABRIC_INTERRUPT 1 CONFIG.PCW_IRQ_F2P_INTR 1 \
        CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $megahertz] $processor
    lassign {M_AXI_GP0 S_AXI_HP0 IRQ_F2P 0x40000000} control memory interrupt address
    apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
        -config {make_external "FIXED_IO, DDR"} $processor
} else {
    set processor [create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e processor]
    set_property -dict [list \
        CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 CONFIG.PSU__USE__M_AXI_GP2 0 \
        CONFIG.PSU__USE__S_AXI_GP2 1 CONFIG.PSU__SAXIGP2__DATA_WIDTH 64 \
        CONFIG.PSU__USE__IRQ0 1 \
        CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $megahertz] $processor
    lassign {M_AXI_HPM0_FPD S_AXI_HP0_FPD pl_ps_irq0 0xA0000000} control memory interrupt address
}

set vta [create_bd_cell -type module -reference vta_axi vta_axi_0]
foreach {name value} $parameters { set_property CONFIG.$name $value $vta }
# These make the interconnects, the clock and its reset.
apply_bd_automation -rule xilinx.com:bd_rule:axi4 \
    -config [list Master /processor/$control Clk Auto] [get_bd_intf_pins $vta/s_axi]
apply_bd_automation -rule xilinx.com:bd_rule:axi4 \
    -config [list Master /vta_axi_0/m_axi Clk Auto] [get_bd_intf_pins processor/$memory]
connect_bd_net [get_bd_pins $vta/interrupt] [get_bd_pins processor/$interrupt]
assign_bd_address
set_property offset $address [get_bd_addr_segs -of_objects [get_bd_addr_spaces processor/*] \
    -filter {NAME =~ *vta_axi_0*}]
validate_bd_design
save_bd_design

make_wrapper -files [get_files design_1.bd] -top -import
set_property top design_1_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
if {[get_property STATS.WNS [get_runs impl_1]] < 0} {
    error "timing doesn't hold at $megahertz MHz: lower it, or choose smaller sizes"
}
file copy -force $folder/vivado/vta.runs/impl_1/design_1_wrapper.bit $folder/vta.bit
file copy -force [lindex [glob $folder/vivado/vta.gen/sources_1/bd/design_1/hw_handoff/*.hwh] 0] \
    $folder/vta.hwh
