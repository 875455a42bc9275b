#!/bin/bash
# Start ZooKeeper as its own user, configured by the ZOO_… variables of the official image unless a zoo.cfg is there.
set -euo pipefail

main() {
    if [[ ${1:-} != zkServer.sh ]]; then
        exec "$@"
    fi
    if [[ $EUID == 0 ]]; then
        chown zookeeper: "$ZOO_CONF_DIR" "$ZOO_DATA_DIR" "$ZOO_DATA_LOG_DIR" "$ZOO_LOG_DIR"
        exec setpriv --reuid=zookeeper --regid=zookeeper --init-groups "$BASH_SOURCE" "$@"
    fi
    [[ -f $ZOO_CONF_DIR/zoo.cfg ]] || configure >"$ZOO_CONF_DIR/zoo.cfg"
    [[ -f $ZOO_DATA_DIR/myid ]] || echo "${ZOO_MY_ID:-1}" >"$ZOO_DATA_DIR/myid"
    # The server's libraries stand in its archive's manifest, but for one that its administration needs and one that logs, to standard error.
    exec java -Xmx"${ZK_SERVER_HEAP:-1000}m" ${JVMFLAGS:-} ${SERVER_JVMFLAGS:-} \
        -Dzookeeper.jmx.log4j.disable=true -Dorg.slf4j.simpleLogger.showDateTime=true \
        -cp "$ZOO_CONF_DIR:/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar:/usr/share/java/servlet-api.jar" \
        org.apache.zookeeper.server.quorum.QuorumPeerMain "$ZOO_CONF_DIR/zoo.cfg"
}

configure() {
    cat <<END
dataDir=$ZOO_DATA_DIR
dataLogDir=$ZOO_DATA_LOG_DIR
tickTime=$ZOO_TICK_TIME
initLimit=$ZOO_INIT_LIMIT
syncLimit=$ZOO_SYNC_LIMIT
autopurge.snapRetainCount=$ZOO_AUTOPURGE_SNAPRETAINCOUNT
autopurge.purgeInterval=$ZOO_AUTOPURGE_PURGEINTERVAL
maxClientCnxns=$ZOO_MAX_CLIENT_CNXNS
standaloneEnabled=$ZOO_STANDALONE_ENABLED
admin.enableServer=$ZOO_ADMINSERVER_ENABLED
4lw.commands.whitelist=${ZOO_4LW_COMMANDS_WHITELIST:-srvr}
END
    printf '%s\n' ${ZOO_CFG_EXTRA:-} ${ZOO_SERVERS:-server.1=localhost:2888:3888;2181}
}

main "$@"
