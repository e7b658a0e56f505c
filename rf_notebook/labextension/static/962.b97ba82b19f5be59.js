"use strict";(self.rspackChunkrf_notebook=self.rspackChunkrf_notebook||[]).push([[962],{329(e,r,n){n.d(r,{SidebarView:()=>C});var a=n(848),t=n(256),l=n(524),o=n(72),s=n.n(o),i=n(587),c=n.n(i),d=n(659),p=n.n(d),u=n(56),f=n.n(u),h=n(540),m=n.n(h),x=n(113),b=n.n(x),g=n(938),v={};v.styleTagTransform=b(),v.setAttributes=f(),v.insert=p().bind(null,"head"),v.domAPI=c(),v.insertStyleElement=m(),s()(g.A,v),g.A&&g.A.locals&&g.A.locals;var j=n(288),w=n(554);let k=l.memo(function({values:e,low:r,high:n,colour:t}){let l=n>r?n-r:1,o=e.map((n,a)=>{let t=1+a/Math.max(e.length-1,1)*54;return`${t.toFixed(1)},${(16-(n-r)/l*14).toFixed(1)}`});return(0,a.jsx)("svg",{className:"rfl-spark",width:56,height:18,"aria-hidden":"true",children:o.length>1&&(0,a.jsx)("polyline",{points:o.join(" "),fill:"none",stroke:t,strokeWidth:1.5})})}),y=[{verb:"stop",icon:t.stopIcon,words:"Stop"},{verb:"resume",icon:t.runIcon,words:"Resume"},{verb:"clone",icon:t.duplicateIcon,words:"Clone"},{verb:"warm start",icon:t.fastForwardIcon,words:"Warm-start from"},{verb:"retry",icon:t.refreshIcon,words:"Retry with half the batch"},{verb:"export",icon:t.downloadIcon,words:"Export"},{verb:"delete",icon:t.deleteIcon,words:"Delete"}],N=l.memo(function(e){let{run:r,low:n,high:t,metric:l,isSelected:o,actions:s}=e,i=`run ${String(r.id)}`,c=null===r.leftSeconds?"":`, ${(0,j.p0)(r.leftSeconds)} left`,d=[`${i}: ${r.word}, ${(0,j.KN)(r.progress)}${c}`,null===l?"":`${l} ${(0,j.ai)(r.value)}`,null===r.parent?"":`cloned from run ${String(r.parent)}${r.warm?", warm":""}`,r.error??""];return(0,a.jsxs)("li",{className:"rfl-run","data-run":r.id,"data-state":r.state,role:"option","aria-selected":o,tabIndex:0,title:d.filter(e=>""!==e).join("\n"),onClick:()=>{s.toggle(r.id)},onKeyDown:e=>{e.target===e.currentTarget&&("Enter"===e.key||" "===e.key)&&(e.preventDefault(),s.toggle(r.id))},children:[(0,a.jsxs)("div",{className:"rfl-line",children:[(0,a.jsx)("span",{className:"rfl-dot",style:{background:e.colour}}),(0,a.jsx)("b",{children:i}),(0,a.jsx)("span",{className:"rfl-sign",children:j.Ze[r.state]??"○"}),(0,a.jsx)("span",{className:"rfl-space"}),(0,a.jsxs)("span",{className:"rfl-value",children:[r.best&&(0,a.jsx)("span",{"aria-label":"best",children:"★ "}),(0,j.ai)(r.value)]}),(0,a.jsx)(k,{values:r.spark,low:n,high:t,colour:e.colour})]}),(0,a.jsxs)("div",{className:"rfl-line",children:[(0,a.jsxs)("span",{className:"rfl-knobs",children:[(0,a.jsx)("span",{className:"rfl-state",children:r.word})," ",r.error??r.knobs.join(" \xb7 ")]}),(0,a.jsx)("span",{className:"rfl-buttons",children:y.filter(({verb:e})=>r.can.includes(e)||"stop"===e&&!r.can.includes("resume")).map(({verb:e,icon:n,words:t})=>(0,a.jsx)("button",{className:"rfl-button","data-verb":e,title:`${t} ${i}`,"aria-label":`${t} ${i}`,disabled:!r.can.includes(e),onClick:n=>{n.stopPropagation(),s.act(e,r.id)},children:(0,a.jsx)(n.react,{tag:"span",elementSize:"small"})},e))})]}),(0,a.jsx)("div",{className:"rfl-bar","aria-hidden":"true",children:(0,a.jsx)("div",{style:{width:`${String(100*r.progress)}%`}})})]})});function $({runs:e,metric:r,selected:n,actions:t}){let{low:l,high:o}=function(e){let r=1/0,n=-1/0;for(let a of e)for(let e of a)r=Math.min(r,e),n=Math.max(n,e);return{low:r,high:n}}(e.map(e=>e.spark));return(0,a.jsx)("ul",{className:"rfl-runs",role:"listbox","aria-multiselectable":"true","aria-label":"Runs",children:e.map(e=>(0,a.jsx)(N,{run:e,low:l,high:o,colour:(0,w.dU)(e.id),metric:r,isSelected:n.includes(e.id),actions:t},e.id))})}class C extends t.ReactWidget{model;actions;constructor(e,r){super(),this.model=e,this.actions=r,this.addClass("rfl-view"),e.changed.connect(()=>{this.isVisible&&this.update()})}onBeforeShow(){this.update()}render(){return(0,a.jsx)(S,{model:this.model,actions:this.actions})}}function S({model:e,actions:r}){let{subject:n,problem:t,message:l}=e;return(0,a.jsxs)(a.Fragment,{children:[null!==t&&(0,a.jsx)("p",{className:"rfl-message","data-kind":"refused",role:"alert",children:t}),null===n?(0,a.jsx)(I,{model:e,actions:r}):(0,a.jsx)(M,{subject:n,model:e,actions:r}),(0,a.jsx)("p",{className:"rfl-message","data-kind":l?.kind??"none",role:"status",children:l?.text??""}),(0,a.jsx)(E,{model:e,current:n}),(0,a.jsx)(A,{model:e,actions:r})]})}function I({model:e,actions:r}){return null===e.notebook?(0,a.jsx)("p",{className:"rfl-hint",children:"Open a notebook: its experiments appear here."}):(0,a.jsxs)("div",{className:"rfl-hint",children:[(0,a.jsx)("p",{children:"This notebook has no experiment yet."}),(0,a.jsx)("button",{className:"rfl-wide",onClick:r.starter,children:"Insert a starter cell"})]})}function M({subject:e,model:r,actions:n}){let{experiment:t}=e,o=l.useMemo(()=>({toggle:e=>{r.toggle(e)},act:(e,r)=>{n.act(e,[r])}}),[r,n]);return(0,a.jsxs)("section",{"aria-label":`Experiment ${t.name}`,children:[(0,a.jsx)(T,{experiment:t}),(0,a.jsxs)("div",{className:"rfl-toolbar",children:[(0,a.jsx)("button",{disabled:!t.isOpen,onClick:n.pause,"data-action":"pause",children:t.paused?"▶ Resume all":"❚❚ Pause all"}),(0,a.jsx)("button",{disabled:!t.isOpen,onClick:n.end,"data-action":"end",children:"End…"}),(0,a.jsx)("button",{onClick:n.panel,"data-action":"panel",children:"Open panel here"}),(0,a.jsx)("button",{onClick:n.log,"data-action":"log",children:"Log"}),(0,a.jsxs)("label",{children:["order"," ",(0,a.jsxs)("select",{value:r.order,onChange:e=>{r.order="metric"===e.target.value?"metric":"run"},children:[(0,a.jsx)("option",{value:"run",children:"by run"}),(0,a.jsx)("option",{value:"metric",children:"best first"})]})]})]}),null!==t.heldUp&&(0,a.jsx)("p",{className:"rfl-message","data-kind":"refused",role:"alert",children:t.heldUp}),(0,a.jsx)($,{runs:r.runs,metric:t.metric,selected:r.selected,actions:o})]})}function T({experiment:e}){let{active:r,failed:n,total:t,leftSeconds:l,metric:o,progress:s}=e;return(0,a.jsxs)("header",{className:"rfl-header",children:[(0,a.jsxs)("div",{className:"rfl-line",children:[(0,a.jsx)("b",{className:"rfl-name",title:e.key,children:e.name}),(0,a.jsx)("span",{className:"rfl-dim",children:o??""})]}),(0,a.jsx)("div",{className:"rfl-standing","data-standing":e.standing,children:e.words}),(0,a.jsxs)("div",{className:"rfl-dim",children:[`${String(r)} of ${String(t)} runs active`,n>0&&(0,a.jsx)("span",{className:"rfl-failed",children:` \xb7 ▲ ${String(n)} failed`}),null!==l&&` \xb7 ${(0,j.p0)(l)} left`]}),(0,a.jsx)("div",{className:"rfl-bar rfl-whole",role:"progressbar","aria-label":"Progress of the experiment","aria-valuenow":Math.floor(100*s),"aria-valuemin":0,"aria-valuemax":100,title:(0,j.KN)(s),children:(0,a.jsx)("div",{style:{width:`${String(100*s)}%`}})})]})}function E({model:e,current:r}){let n=e.groups.flatMap(e=>(e.state?.experiments??[]).filter(n=>n.key!==r?.experiment.key||e.kernel!==r.group.kernel).map(r=>({group:e,experiment:r})));return 0===n.length?null:(0,a.jsxs)("section",{className:"rfl-others","aria-label":"Other experiments",children:[(0,a.jsx)("h3",{children:"Other experiments"}),(0,a.jsx)("ul",{children:n.map(({group:r,experiment:n})=>(0,a.jsx)("li",{children:(0,a.jsxs)("button",{className:"rfl-other",title:r.notebooks.join(", "),onClick:()=>{e.choose(r.kernel,n.key)},children:[(0,a.jsx)("b",{children:n.name})," ",(0,a.jsx)("span",{className:"rfl-dim",children:n.words})]})},`${r.kernel} ${n.key}`))})]})}function A({model:e,actions:r}){return 0===e.recorded.length?null:(0,a.jsxs)("section",{className:"rfl-others","aria-label":"Experiments on disk",children:[(0,a.jsx)("h3",{children:"On disk"}),(0,a.jsx)("ul",{children:e.recorded.map(({name:e,standing:n,runs:t})=>(0,a.jsxs)("li",{className:"rfl-recorded","data-name":e,children:[(0,a.jsxs)("span",{children:[(0,a.jsx)("b",{children:e})," ",(0,a.jsxs)("span",{className:"rfl-dim",children:[n,null!==t&&`, ${String(t)} runs`]})]}),(0,a.jsx)("button",{"aria-label":`Reopen ${e}`,onClick:()=>{r.reopen(e)},children:"Reopen"})]},e))})]})}},938(e,r,n){var a=n(601),t=n.n(a),l=n(314),o=(n.n(l))()(t());o.push([e.id,`/* The sidebar; loaded when it is first opened. */

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

.rfl-run {
  border-bottom: 1px solid var(--jp-border-color2);
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

.rfl-run[data-state='failed'] :is(.rfl-sign, .rfl-knobs) {
  color: var(--jp-error-color1);
}

.rfl-run[data-state='completed'] :is(.rfl-sign, .rfl-state) {
  color: var(--jp-success-color1);
}

.rfl-value {
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

.rfl-sidebar .rfl-button:disabled {
  opacity: 0.35;
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
`,""]),n.d(r,{},{A:o})},314(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var n="",a=void 0!==r[5];return r[4]&&(n+="@supports (".concat(r[4],") {")),r[2]&&(n+="@media ".concat(r[2]," {")),a&&(n+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),n+=e(r),a&&(n+="}"),r[2]&&(n+="}"),r[4]&&(n+="}"),n}).join("")},r.i=function(e,n,a,t,l){"string"==typeof e&&(e=[[null,e,void 0]]);var o={};if(a)for(var s=0;s<this.length;s++){var i=this[s][0];null!=i&&(o[i]=!0)}for(var c=0;c<e.length;c++){var d=[].concat(e[c]);a&&o[d[0]]||(void 0!==l&&(void 0===d[5]||(d[1]="@layer".concat(d[5].length>0?" ".concat(d[5]):""," {").concat(d[1],"}")),d[5]=l),n&&(d[2]&&(d[1]="@media ".concat(d[2]," {").concat(d[1],"}")),d[2]=n),t&&(d[4]?(d[1]="@supports (".concat(d[4],") {").concat(d[1],"}"),d[4]=t):d[4]="".concat(t)),r.push(d))}},r}},601(e){e.exports=function(e){return e[1]}},72(e){var r=[];function n(e){for(var n=-1,a=0;a<r.length;a++)if(r[a].identifier===e){n=a;break}return n}function a(e,a){for(var t={},l=[],o=0;o<e.length;o++){var s=e[o],i=a.base?s[0]+a.base:s[0],c=t[i]||0,d="".concat(i," ").concat(c);t[i]=c+1;var p=n(d),u={css:s[1],media:s[2],sourceMap:s[3],supports:s[4],layer:s[5]};if(-1!==p)r[p].references++,r[p].updater(u);else{var f=function(e,r){var n=r.domAPI(r);return n.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&n.update(e=r):n.remove()}}(u,a);a.byIndex=o,r.splice(o,0,{identifier:d,updater:f,references:1})}l.push(d)}return l}e.exports=function(e,t){var l=a(e=e||[],t=t||{});return function(e){e=e||[];for(var o=0;o<l.length;o++){var s=n(l[o]);r[s].references--}for(var i=a(e,t),c=0;c<l.length;c++){var d=n(l[c]);0===r[d].references&&(r[d].updater(),r.splice(d,1))}l=i}}},659(e){var r={};e.exports=function(e,n){var a=function(e){if(void 0===r[e]){var n=document.querySelector(e);if(window.HTMLIFrameElement&&n instanceof window.HTMLIFrameElement)try{n=n.contentDocument.head}catch(e){n=null}r[e]=n}return r[e]}(e);if(!a)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");a.appendChild(n)}},540(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},56(e,r,n){e.exports=function(e){var r=n.nc;r&&e.setAttribute("nonce",r)}},587(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(n){var a,t,l;a="",n.supports&&(a+="@supports (".concat(n.supports,") {")),n.media&&(a+="@media ".concat(n.media," {")),(t=void 0!==n.layer)&&(a+="@layer".concat(n.layer.length>0?" ".concat(n.layer):""," {")),a+=n.css,t&&(a+="}"),n.media&&(a+="}"),n.supports&&(a+="}"),(l=n.sourceMap)&&"u">typeof btoa&&(a+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(l))))," */")),e.styleTagTransform(a,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}}}]);