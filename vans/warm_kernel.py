"""A notebook's kernel as a fork of the server that has imported the libraries, where there is one."""

import os
import subprocess
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from vans import warm_server


class Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **given: Any) -> Any:
        env = {**(given.get("env") or os.environ), "JPY_PARENT_PID": str(os.getpid())}
        options = {key: given.get(key) for key in ("cwd", "stdout", "stderr")}
        self.process: Any = warm_server.popen(cmd, env, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        if self.process is None:
            return await super().launch_kernel(cmd, **given)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class Manager(AsyncKernelManager):
    async def _async_pre_start_kernel(self, **given: Any) -> Any:
        if self.provisioner is None:
            self.provisioner = Provisioner(kernel_id=self.kernel_id or "", kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**given)

    pre_start_kernel = _async_pre_start_kernel
