"""Runs a launch file of ROS's XML frontend where ROS's own launch is not installed.

    python -m muon_ad_nodes.bringup multitask.launch.xml style:=mosaic

What it understands (anything else in a file is an error with file and line), in the meaning that
Humble, Jazzy and Kilted give it:

- Actions, each with an optional `if` or `unless`: `<arg name default description>` with
  `<choice value>`; `<let name value>`; `<set_env name value>`; `<unset_env name>`;
  `<group>`, always scoped; `<push_ros_namespace namespace>`; `<include file>` with
  `<arg name value>`; `<node pkg exec name namespace args output respawn respawn_delay>`.
- In a node: `<param name value type>`, where type is absent (the value is read as YAML) or `str`
  (kept as text); `<param from>`; `<remap from to>`; `<env name value>`.
- Substitutions: `$(var NAME DEFAULT)`, `$(env NAME DEFAULT)`, `$(find-pkg-share PACKAGE)`,
  `$(dirname)`.

Narrower than launch, on purpose: a node's output is always `screen`, as there are no log files;
an argument that no file declares, a parameter file that does not exist and two nodes of one name
are errors; `$(dirname)` after an `<include>` is refused, since launch then gives the folder of the
included file.
"""
