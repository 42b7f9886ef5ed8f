"""A call as AiiDA sees it: a calculation with structure, protocol and work as inputs, and its outcome as nodes.

The job runs ``python -m naica.discover.engines.job`` in its folder. Loaded by AiiDA's daemon under the entry points ``naica.call``.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec, ExitCode
from aiida.orm import ArrayData, Dict, SinglefileData, StructureData
from aiida.parsers import Parser

from naica.structure import Crystal
from naica.structure.elements import symbol

_ATOMS = ("numbers", "positions", "cell", "pbc")


def text_of(crystal: Crystal) -> str:
    """A crystal as JSON, exactly."""
    return json.dumps({part: getattr(crystal, part).tolist() for part in _ATOMS})


def structure_of(crystal: Crystal) -> StructureData:
    """A crystal as a node, to look at: AiiDA rounds numbers to 15 digits, so the exact crystal travels as text in `call`."""
    node = StructureData(cell=crystal.cell.tolist(), pbc=[bool(p) for p in crystal.pbc])
    for number, position in zip(crystal.numbers, crystal.positions, strict=True):
        node.append_atom(position=position.tolist(), symbols=symbol(int(number)))
    return node


class OracleCall(CalcJob):
    """One call: what is asked, of whom, and what came of it."""

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Inputs, outputs and exit codes."""
        super().define(spec)
        spec.input("structure", valid_type=StructureData, help="the crystal that is asked about")
        spec.input("protocol", valid_type=Dict, help="who is asked: oracle or code, level of theory, settings")
        spec.input("work", valid_type=SinglefileData, help="the same, as the job runs it")
        spec.input("call", valid_type=Dict, help="the name of the call in its campaign, and the exact crystal as text")
        spec.output("result", valid_type=Dict, help="status, reason, energy (eV, whole cell), level, seconds, attempts")
        spec.output("structure", valid_type=StructureData, required=False, help="the crystal that came out, if it was relaxed")
        spec.output("arrays", valid_type=ArrayData, required=False, help="forces (n, 3) eV/Å and stress (3, 3) eV/Å³")
        options: Any = spec.inputs["metadata"]["options"]  # type: ignore[index]
        options["parser_name"].default = "naica.call"
        options["resources"].default = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
        spec.exit_code(300, "ERROR_NO_OUTCOME", message="the job ended without an outcome (killed, out of time or memory, or misinstalled)")
        spec.exit_code(400, "ERROR_NOT_CONVERGED", message="the call ended without a usable result: {reason}")

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structure, send the work along, name what comes back."""
        call = self.inputs.call.get_dict()
        with folder.open("order.json", "w") as handle:
            json.dump({"name": call["name"], "info": call["info"], "crystal": json.loads(call["crystal"])}, handle)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["-m", "naica.discover.engines.job"]
        code.stdout_name, code.stderr_name = "job.out", "job.err"
        info = CalcInfo()
        info.codes_info = [code]
        info.local_copy_list = [(self.inputs.work.uuid, self.inputs.work.filename, "work.pkl")]
        info.retrieve_list = ["outcome.json", "job.out", "job.err"]
        return info


class OracleCallParser(Parser):
    """Reads ``outcome.json`` into nodes."""

    def parse(self, **_: Any) -> ExitCode | None:
        """Nodes of a finished job, or an exit code that says why there are none."""
        try:
            outcome = json.loads(self.retrieved.base.repository.get_object_content("outcome.json", mode="r"))
        except (OSError, ValueError):
            return self.exit_codes.ERROR_NO_OUTCOME
        crystal = outcome.pop("crystal", None)
        arrays = {name: found for name in ("forces", "stress") if (found := outcome.pop(name, None)) is not None}
        self.out("result", Dict(outcome))
        if crystal is not None:
            self.out("structure", structure_of(Crystal(**{part: crystal[part] for part in _ATOMS})))
        if arrays:
            node = ArrayData()
            for name, values in arrays.items():
                node.set_array(name, np.asarray(values))
            self.out("arrays", node)
        if outcome.get("status", "converged") != "converged":
            return self.exit_codes.ERROR_NOT_CONVERGED.format(reason=str(outcome.get("reason"))[:200])
        return None
