"use strict";(self.rspackChunkrf_notebook=self.rspackChunkrf_notebook||[]).push([[962],{329(e,r,n){n.d(r,{SidebarView:()=>I});var t=n(848),a=n(256),o=n(524),l=n(72),s=n.n(l),i=n(587),c=n.n(i),d=n(659),p=n.n(d),u=n(56),f=n.n(u),h=n(540),m=n.n(h),x=n(113),b=n.n(x),g=n(938),v={};v.styleTagTransform=b(),v.setAttributes=f(),v.insert=p().bind(null,"head"),v.domAPI=c(),v.insertStyleElement=m(),s()(g.A,v),g.A&&g.A.locals&&g.A.locals;var j=n(288),w=n(558),k=n(554);let y=o.memo(function({values:e,low:r,high:n,colour:a}){let o=n>r?n-r:1,l=e.map((n,t)=>{let a=1+t/Math.max(e.length-1,1)*54;return`${a.toFixed(1)},${(16-(n-r)/o*14).toFixed(1)}`});return(0,t.jsx)("svg",{className:"rfl-spark",width:56,height:18,"aria-hidden":"true",children:l.length>1&&(0,t.jsx)("polyline",{points:l.join(" "),fill:"none",stroke:a,strokeWidth:1.5})})}),N=[{verb:"stop",icon:a.stopIcon,words:"Stop"},{verb:"resume",icon:a.runIcon,words:"Resume"},{verb:"clone",icon:a.duplicateIcon,words:"Clone"},{verb:"warm start",icon:a.fastForwardIcon,words:"Warm-start from"},{verb:"retry",icon:a.refreshIcon,words:"Retry with half the batch"},{verb:"export",icon:a.downloadIcon,words:"Export"},{verb:"delete",icon:a.deleteIcon,words:"Delete"}],$=o.memo(function({run:e,can:r,actions:n}){let a=r.split(",");return(0,t.jsx)("span",{className:"rfl-buttons",children:N.filter(({verb:e})=>a.includes(e)).map(({verb:r,icon:a,words:o})=>(0,t.jsx)("button",{className:"rfl-button","data-verb":r,title:`${o} run ${String(e)}`,"aria-label":`${o} run ${String(e)}`,onClick:t=>{t.stopPropagation(),n.act(r,e)},children:(0,t.jsx)(a.react,{tag:"span",elementSize:"small"})},r))})}),C=o.memo(function(e){let{run:r,low:n,high:a,metric:o,isSelected:l,actions:s}=e,i=`run ${String(r.id)}`,c=[`${i}: ${r.word}, ${(0,j.KN)(r.progress)}`,null===o?"":`${o} ${(0,j.ai)(r.value)}`,null===r.parent?"":`cloned from run ${String(r.parent)}${r.warm?", warm":""}`,r.error??""];return(0,t.jsxs)("li",{className:"rfl-run","data-run":r.id,"data-state":r.state,role:"option","aria-selected":l,tabIndex:0,title:c.filter(e=>""!==e).join("\n"),onClick:()=>{s.toggle(r.id)},onKeyDown:e=>{e.target===e.currentTarget&&("Enter"===e.key||" "===e.key)&&(e.preventDefault(),s.toggle(r.id))},children:[(0,t.jsxs)("div",{className:"rfl-line",children:[(0,t.jsx)("span",{className:"rfl-dot",style:{background:e.colour}}),(0,t.jsx)("b",{children:i}),(0,t.jsx)("span",{className:"rfl-sign",children:j.Ze[r.state]??"○"}),(0,t.jsx)("span",{className:"rfl-space"}),(0,t.jsxs)("span",{className:"rfl-value",children:[r.best&&(0,t.jsx)("span",{"aria-label":"best",children:"★ "}),(0,j.ai)(r.value)]}),(0,t.jsx)(y,{values:r.spark,low:n,high:a,colour:e.colour})]}),(0,t.jsxs)("div",{className:"rfl-line",children:[(0,t.jsxs)("span",{className:"rfl-knobs",children:[(0,t.jsx)("span",{className:"rfl-state",children:r.word})," ",r.error??r.knobs.join(" \xb7 ")]}),(0,t.jsx)($,{run:r.id,can:r.can.join(","),actions:s})]}),(0,t.jsx)("div",{className:"rfl-bar","aria-hidden":"true",children:(0,t.jsx)("div",{style:{width:`${String(100*r.progress)}%`}})})]})});function S({runs:e,metric:r,selected:n,actions:a}){let[l,s]=o.useState(!1),i=o.useRef([]),c=l?(0,w.zp)(e,i.current):e;i.current=c.map(e=>e.id);let{low:d,high:p}=function(e){let r=1/0,n=-1/0;for(let t of e)for(let e of t)r=Math.min(r,e),n=Math.max(n,e);return{low:r,high:n}}(e.map(e=>e.spark));return(0,t.jsx)("ul",{className:"rfl-runs",role:"listbox","aria-multiselectable":"true","aria-label":"Runs",onPointerEnter:()=>{s(!0)},onPointerLeave:()=>{s(!1)},children:c.map(e=>(0,t.jsx)(C,{run:e,low:d,high:p,colour:(0,k.dU)(e.id),metric:r,isSelected:n.includes(e.id),actions:a},e.id))})}class I extends a.ReactWidget{model;actions;constructor(e,r){super(),this.model=e,this.actions=r,this.addClass("rfl-view"),e.changed.connect(()=>{this.isVisible&&this.update()})}onBeforeShow(){this.update()}render(){return(0,t.jsx)(E,{model:this.model,actions:this.actions})}}function E({model:e,actions:r}){let{subject:n,problem:a,message:o}=e;return(0,t.jsxs)(t.Fragment,{children:[null!==a&&(0,t.jsx)("p",{className:"rfl-message","data-kind":"refused",role:"alert",children:a}),null===n?(0,t.jsx)(M,{model:e,actions:r}):(0,t.jsx)(R,{subject:n,model:e,actions:r}),(0,t.jsx)("p",{className:"rfl-message","data-kind":o?.kind??"none",role:"status",children:o?.text??""}),(0,t.jsx)(A,{model:e,current:n}),(0,t.jsx)(z,{model:e,actions:r})]})}function M({model:e,actions:r}){if(null===e.notebook)return(0,t.jsx)("p",{className:"rfl-hint",children:"Open a notebook: its experiments appear here."});let n=e.notebook.shows??[];return n.length>0?(0,t.jsxs)("p",{className:"rfl-hint",children:["This notebook shows what was saved of ",n.map(e=>`“${e}”`).join(", "),"; its kernel does not have it. Run the cell that starts it to continue, or to see the panel with all of its pages."]}):(0,t.jsxs)("div",{className:"rfl-hint",children:[(0,t.jsx)("p",{children:"This notebook has no experiment yet."}),(0,t.jsx)("button",{className:"rfl-wide",onClick:r.starter,children:"Insert a starter cell"})]})}function R({subject:e,model:r,actions:n}){let{experiment:a}=e,l=o.useMemo(()=>({toggle:e=>{r.toggle(e)},act:(e,r)=>{n.act(e,[r])}}),[r,n]);return(0,t.jsxs)("section",{"aria-label":`Experiment ${a.name}`,children:[(0,t.jsx)(T,{experiment:a}),(0,t.jsxs)("div",{className:"rfl-toolbar",children:[(0,t.jsx)("button",{disabled:!a.isOpen,onClick:n.pause,"data-action":"pause",children:a.paused?"▶ Resume all":"❚❚ Pause all"}),(0,t.jsx)("button",{disabled:!a.isOpen,onClick:n.end,"data-action":"end",children:"End…"}),(0,t.jsx)("button",{onClick:n.panel,"data-action":"panel",children:"Open panel here"}),(0,t.jsx)("button",{onClick:n.log,"data-action":"log",children:"Log"}),(0,t.jsx)("button",{onClick:n.exportNotebook,"data-action":"export-experiment",children:"Export…"}),(0,t.jsx)("button",{onClick:n.replay,"data-action":"replay",children:"Replay…"}),(0,t.jsxs)("label",{children:["order"," ",(0,t.jsxs)("select",{value:r.order,onChange:e=>{r.order="metric"===e.target.value?"metric":"run"},children:[(0,t.jsx)("option",{value:"run",children:"by run"}),(0,t.jsx)("option",{value:"metric",children:"best first"})]})]})]}),null!==a.heldUp&&(0,t.jsx)("p",{className:"rfl-message","data-kind":"refused",role:"alert",children:a.heldUp}),(0,t.jsx)(S,{runs:r.runs,metric:a.metric,selected:r.selected,actions:l})]})}function T({experiment:e}){let{active:r,failed:n,total:a,leftSeconds:o,metric:l,progress:s}=e;return(0,t.jsxs)("header",{className:"rfl-header",children:[(0,t.jsxs)("div",{className:"rfl-line",children:[(0,t.jsx)("b",{className:"rfl-name",title:e.key,children:e.name}),(0,t.jsx)("span",{className:"rfl-dim",children:l??""})]}),(0,t.jsx)("div",{className:"rfl-standing","data-standing":e.standing,children:e.words}),(0,t.jsxs)("div",{className:"rfl-dim",children:[`${String(r)} of ${String(a)} runs active`,n>0&&(0,t.jsx)("span",{className:"rfl-failed",children:` \xb7 ▲ ${String(n)} failed`}),null!==o&&` \xb7 ${(0,j.p0)(o)} left`]}),(0,t.jsx)("div",{className:"rfl-bar rfl-whole",role:"progressbar","aria-label":"Progress of the experiment","aria-valuenow":Math.floor(100*s),"aria-valuemin":0,"aria-valuemax":100,title:(0,j.KN)(s),children:(0,t.jsx)("div",{style:{width:`${String(100*s)}%`}})})]})}function A({model:e,current:r}){let n=e.groups.flatMap(e=>(e.state?.experiments??[]).filter(n=>n.key!==r?.experiment.key||e.kernel!==r.group.kernel).map(r=>({group:e,experiment:r})));return 0===n.length?null:(0,t.jsxs)("section",{className:"rfl-others","aria-label":"Other experiments",children:[(0,t.jsx)("h3",{children:"Other experiments"}),(0,t.jsx)("ul",{children:n.map(({group:r,experiment:n})=>(0,t.jsx)("li",{children:(0,t.jsxs)("button",{className:"rfl-other",title:r.notebooks.join(", "),onClick:()=>{e.choose(r.kernel,n.key)},children:[(0,t.jsx)("b",{children:n.name})," ",(0,t.jsx)("span",{className:"rfl-dim",children:n.words})]})},`${r.kernel} ${n.key}`))})]})}function z({model:e,actions:r}){return 0===e.recorded.length?null:(0,t.jsxs)("section",{className:"rfl-others","aria-label":"Experiments on disk",children:[(0,t.jsx)("h3",{children:"On disk"}),(0,t.jsx)("ul",{children:e.recorded.map(({name:e,standing:n,runs:a,words:o})=>(0,t.jsxs)("li",{className:"rfl-recorded","data-name":e,children:[(0,t.jsxs)("span",{title:`${e}: ${o}`,children:[(0,t.jsx)("b",{children:e})," ",(0,t.jsxs)("span",{className:"rfl-dim",children:[n,null!==a&&`, ${String(a)} runs`]}),""!==o&&(0,t.jsx)("span",{className:"rfl-dim rfl-about",children:o})]}),(0,t.jsx)("button",{"aria-label":`Reopen ${e}`,onClick:()=>{r.reopen(e)},children:"Reopen"}),""!==o&&(0,t.jsx)("button",{"aria-label":`Remove ${e} from the disk`,title:"remove it from the disk",onClick:()=>{r.remove(e)},children:"✕"})]},e))})]})}},938(e,r,n){var t=n(601),a=n.n(t),o=n(314),l=(n.n(o))()(a());l.push([e.id,`/* The sidebar; loaded when it is first opened. */

.rfl-sidebar {
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
  min-width: 200px;
  overflow: auto !important;
}

.rfl-view {
  padding: 8px;
}

.rfl-sidebar h3 {
  color: var(--jp-ui-font-color2);
  font-size: 11px;
  letter-spacing: 0.04em;
  margin: 12px 0 4px;
  text-transform: uppercase;
}

.rfl-sidebar button:focus-visible,
.rfl-sidebar select:focus-visible,
.rfl-run:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: 1px;
}

.rfl-hint {
  color: var(--jp-ui-font-color2);
  padding: 8px 0;
}

.rfl-line {
  align-items: center;
  display: flex;
  gap: 6px;
  min-width: 0;
}

.rfl-name,
.rfl-knobs {
  min-width: 0;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-name {
  flex: 1;
  font-size: 14px;
}

.rfl-standing[data-standing='training'] {
  color: var(--jp-brand-color1);
}

.rfl-standing[data-standing='paused'],
.rfl-standing[data-standing='interrupted'] {
  color: var(--jp-warn-color1);
}

.rfl-standing[data-standing='error'] {
  color: var(--jp-error-color1);
}

.rfl-bar {
  background: var(--jp-border-color2);
  height: 2px;
  margin-top: 3px;
}

.rfl-bar > div {
  background: var(--jp-ui-font-color3);
  height: 100%;
}

.rfl-bar.rfl-whole {
  height: 4px;
}

.rfl-bar.rfl-whole > div {
  background: var(--jp-brand-color1);
}

.rfl-toolbar {
  align-items: center;
  display: flex;
  flex-wrap: wrap;
  gap: 4px;
  margin: 8px 0;
}

.rfl-sidebar button,
.rfl-sidebar select {
  background: var(--jp-layout-color1);
  border: 1px solid var(--jp-border-color1);
  border-radius: 3px;
  color: var(--jp-ui-font-color1);
  cursor: pointer;
  font: inherit;
  font-size: 12px;
  padding: 2px 7px;
}

.rfl-sidebar button:hover:enabled {
  background: var(--jp-layout-color2);
}

.rfl-sidebar button:disabled {
  color: var(--jp-ui-font-color3);
  cursor: default;
}

.rfl-runs,
.rfl-others ul {
  list-style: none;
  margin: 0;
  padding: 0;
}

/* A row that changes is laid out and painted alone. */
.rfl-run {
  border-bottom: 1px solid var(--jp-border-color2);
  contain: content;
  cursor: pointer;
  padding: 5px 4px 4px;
}

.rfl-run:hover {
  background: var(--jp-layout-color2);
}

.rfl-run[aria-selected='true'] {
  background: color-mix(in srgb, var(--jp-brand-color1) 18%, transparent);
}

.rfl-run b {
  white-space: nowrap;
}

.rfl-space {
  flex: 1;
}

.rfl-run[data-state='running'] :is(.rfl-sign, .rfl-state) {
  color: var(--jp-brand-color1);
}

.rfl-run[data-state='stopped'] :is(.rfl-sign, .rfl-state) {
  color: var(--jp-warn-color1);
}

.rfl-run:is([data-state='failed'], [data-state='diverged']) :is(.rfl-sign, .rfl-knobs) {
  color: var(--jp-error-color1);
}

.rfl-run[data-state='completed'] :is(.rfl-sign, .rfl-state) {
  color: var(--jp-success-color1);
}

.rfl-value {
  min-width: 60px;
  text-align: right;
  font-variant-numeric: tabular-nums;
  white-space: nowrap;
}

.rfl-spark {
  flex: none;
}

.rfl-knobs {
  color: var(--jp-ui-font-color2);
  flex: 1;
  font-size: 12px;
}

.rfl-buttons {
  display: flex;
  flex: none;
  gap: 2px;
}

.rfl-sidebar .rfl-button {
  background: none;
  border-color: transparent;
  line-height: 0;
  padding: 1px;
}

.rfl-message {
  margin: 6px 0 0;
  min-height: 1.2em;
  overflow-wrap: anywhere;
}

.rfl-message[data-kind='refused'] {
  color: var(--jp-error-color1);
}

.rfl-message[data-kind='done'] {
  color: var(--jp-success-color1);
}

.rfl-message[data-kind='waiting'] {
  color: var(--jp-ui-font-color2);
}

.rfl-sidebar .rfl-other {
  border: 0;
  overflow: hidden;
  padding: 3px 4px;
  text-align: left;
  text-overflow: ellipsis;
  white-space: nowrap;
  width: 100%;
}

.rfl-recorded {
  align-items: center;
  display: flex;
  gap: 6px;
  justify-content: space-between;
  padding: 2px 4px;
}

.rfl-recorded > span {
  min-width: 0;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-about {
  display: block;
  font-size: 11px;
  overflow-wrap: anywhere;
  white-space: normal;
}

.rfl-hosted {
  margin: 8px;
}

.rfl-hosted.rf-panel .rf-field .widget-label {
  min-width: 0;
  width: 45%;
}

.rfl-tab {
  background: var(--jp-layout-color1);
  overflow: auto;
  padding: 4px;
}
`,""]),n.d(r,{},{A:l})},314(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var n="",t=void 0!==r[5];return r[4]&&(n+="@supports (".concat(r[4],") {")),r[2]&&(n+="@media ".concat(r[2]," {")),t&&(n+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),n+=e(r),t&&(n+="}"),r[2]&&(n+="}"),r[4]&&(n+="}"),n}).join("")},r.i=function(e,n,t,a,o){"string"==typeof e&&(e=[[null,e,void 0]]);var l={};if(t)for(var s=0;s<this.length;s++){var i=this[s][0];null!=i&&(l[i]=!0)}for(var c=0;c<e.length;c++){var d=[].concat(e[c]);t&&l[d[0]]||(void 0!==o&&(void 0===d[5]||(d[1]="@layer".concat(d[5].length>0?" ".concat(d[5]):""," {").concat(d[1],"}")),d[5]=o),n&&(d[2]&&(d[1]="@media ".concat(d[2]," {").concat(d[1],"}")),d[2]=n),a&&(d[4]?(d[1]="@supports (".concat(d[4],") {").concat(d[1],"}"),d[4]=a):d[4]="".concat(a)),r.push(d))}},r}},601(e){e.exports=function(e){return e[1]}},72(e){var r=[];function n(e){for(var n=-1,t=0;t<r.length;t++)if(r[t].identifier===e){n=t;break}return n}function t(e,t){for(var a={},o=[],l=0;l<e.length;l++){var s=e[l],i=t.base?s[0]+t.base:s[0],c=a[i]||0,d="".concat(i," ").concat(c);a[i]=c+1;var p=n(d),u={css:s[1],media:s[2],sourceMap:s[3],supports:s[4],layer:s[5]};if(-1!==p)r[p].references++,r[p].updater(u);else{var f=function(e,r){var n=r.domAPI(r);return n.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&n.update(e=r):n.remove()}}(u,t);t.byIndex=l,r.splice(l,0,{identifier:d,updater:f,references:1})}o.push(d)}return o}e.exports=function(e,a){var o=t(e=e||[],a=a||{});return function(e){e=e||[];for(var l=0;l<o.length;l++){var s=n(o[l]);r[s].references--}for(var i=t(e,a),c=0;c<o.length;c++){var d=n(o[c]);0===r[d].references&&(r[d].updater(),r.splice(d,1))}o=i}}},659(e){var r={};e.exports=function(e,n){var t=function(e){if(void 0===r[e]){var n=document.querySelector(e);if(window.HTMLIFrameElement&&n instanceof window.HTMLIFrameElement)try{n=n.contentDocument.head}catch(e){n=null}r[e]=n}return r[e]}(e);if(!t)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");t.appendChild(n)}},540(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},56(e,r,n){e.exports=function(e){var r=n.nc;r&&e.setAttribute("nonce",r)}},587(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(n){var t,a,o;t="",n.supports&&(t+="@supports (".concat(n.supports,") {")),n.media&&(t+="@media ".concat(n.media," {")),(a=void 0!==n.layer)&&(t+="@layer".concat(n.layer.length>0?" ".concat(n.layer):""," {")),t+=n.css,a&&(t+="}"),n.media&&(t+="}"),n.supports&&(t+="}"),(o=n.sourceMap)&&"u">typeof btoa&&(t+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(o))))," */")),e.styleTagTransform(t,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}}}]);